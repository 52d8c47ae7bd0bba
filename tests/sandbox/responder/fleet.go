package responder

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// longWindow is the longest window of `/load` in seconds, and so what is kept of a replica.
const longWindow = 60

// Replica is a pod of a model on a KWOK node, as the API server has it.
type Replica struct {
	// Model is NAMESPACE/NAME.
	Model    string
	Name     string
	UID      string
	Address  string
	Revision string
	GPUs     int
	Ready    bool
	Draining bool
	Created  time.Time
	Started  time.Time
}

// second of a replica that was Ready in it.
type second struct {
	offered, answered, utilization, queueDelayMs float64
}

// replica and its last seconds, the newest last.
type replica struct {
	Replica
	rank, of int
	seconds  []second
	// first answer since the fault, or the want of one, is what it is.
	first *firstAnswer
}

type firstAnswer struct {
	fault FaultKind
	at    time.Time
	load  load
}

// fleet is all replicas and the load on them. Its clock are the times that it is called with.
type fleet struct {
	mu       sync.Mutex
	script   *Script
	replicas map[string]*replica // by uid
	models   map[string][]*replica
	// ticked is the newest second of the clock that has been counted.
	ticked time.Time
}

func newFleet(now time.Time) *fleet {
	return &fleet{script: &Script{Models: map[string]Model{}}, replicas: map[string]*replica{}, models: map[string][]*replica{}, ticked: now}
}

func (f *fleet) setScript(script *Script) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
}

func (f *fleet) currentScript() *Script {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.script
}

// observe replaces what is known of the pods. What a replica has seen stays with it as long as it is Ready.
func (f *fleet) observe(pods []Replica) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.replicas
	f.replicas, f.models = map[string]*replica{}, map[string][]*replica{}
	for _, pod := range pods {
		r := &replica{Replica: pod}
		if old := before[pod.UID]; old != nil {
			r.first = old.first
			if pod.Ready {
				r.seconds = old.seconds
			}
		}
		f.replicas[pod.UID] = r
		f.models[pod.Model] = append(f.models[pod.Model], r)
	}
	for _, all := range f.models {
		slices.SortFunc(all, func(a, b *replica) int {
			return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
		})
		for rank, r := range all {
			r.rank, r.of = rank, len(all)
		}
	}
}

// tick counts the seconds that went by. After a pause (the process was stopped) the newest minute is made up for.
func (f *fleet) tick(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.ticked) > longWindow*time.Second {
		f.ticked = now.Add(-longWindow * time.Second)
	}
	for !f.ticked.Add(time.Second).After(now) {
		for name, all := range f.models {
			f.count(name, all)
		}
		f.ticked = f.ticked.Add(time.Second)
	}
}

// count one second of one model: its total is divided over the replicas that are Ready.
func (f *fleet) count(name string, all []*replica) {
	var ready []*replica
	for _, r := range all {
		if r.Ready && !r.Draining {
			ready = append(ready, r)
		}
	}
	model, scripted := f.script.Models[name]
	var total float64
	if scripted {
		total = f.script.total(name, int64(f.ticked.Sub(f.script.StartedAt)/time.Second))
	}
	for rank, r := range ready {
		var s second
		if scripted {
			s.offered = total * model.share(rank, len(ready))
			s.answered = min(s.offered, model.Capacity)
			s.utilization = s.offered / model.Capacity
			s.queueDelayMs = model.QueueDelayMs.at(s.utilization)
		}
		if len(r.seconds) == longWindow {
			copy(r.seconds, r.seconds[1:])
			r.seconds[longWindow-1] = s
		} else {
			r.seconds = append(r.seconds, s)
		}
	}
}

// fault that a replica has now, or none.
func (f *fleet) fault(r *replica, now time.Time) FaultKind {
	model, scripted := f.script.Models[r.Model]
	if !scripted {
		return ""
	}
	if fault := model.fault(r.Name, r.rank, r.of, now.Sub(f.script.StartedAt).Seconds()); fault != nil {
		return fault.Kind
	}
	return ""
}

// response is what to do with a request, and the body of `/load` if that is to answer.
type response struct {
	fault FaultKind
	ready bool
	load  []byte
}

// respond for the pod of that uid; false: there is none.
func (f *fleet) respond(uid string, now time.Time) (response, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.replicas[uid]
	if r == nil {
		return response{}, false
	}
	fault, answer := f.fault(r, now), r.load(now, f.ticked)
	if r.first == nil || r.first.fault != fault {
		r.first = &firstAnswer{fault, now, answer}
	}
	spoil(&answer, r.first, now)
	return response{fault, r.Ready, answer.text()}, true
}

// addresses that take connections now, and the pods behind them. Of two pods that had one, the younger has it.
func (f *fleet) addresses(now time.Time) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := map[string]*replica{}
	for _, r := range f.replicas {
		if other := open[r.Address]; other == nil || other.Created.Before(r.Created) {
			open[r.Address] = r
		}
	}
	uids := map[string]string{}
	for address, r := range open {
		if f.fault(r, now) != Refuse {
			uids[address] = r.UID
		}
	}
	return uids
}
