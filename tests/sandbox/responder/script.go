// Package responder answers on the runtime's admin port for every pod on a KWOK node, from a load script.
//
//	script     what the load is and what goes wrong, parsed once     script.go, curve.go
//	fleet      seconds go by, and every replica gets its share       fleet.go
//	answer     `/load` of one replica                                answer.go
//	listeners  one server for each pod's address                     listener.go
//	run        watches pods, takes scripts, counts seconds           run.go
package responder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Script is what the models are asked, and how their replicas take it. Its second 0 is StartedAt.
type Script struct {
	// StartedAt: none in what is posted means now; a script that repeats it goes on where the last one was.
	StartedAt time.Time        `json:"startedAt,omitzero"`
	Seed      uint64           `json:"seed"`
	Models    map[string]Model `json:"models"`
}

// Model is the load of one model, by NAMESPACE/NAME.
type Model struct {
	// RequestsPerSecond of all replicas together, by second of the script.
	RequestsPerSecond Curve `json:"requestsPerSecond"`
	// Noise is the standard deviation of a second's total, as a share of it.
	Noise float64 `json:"noise"`
	// Capacity of a replica in requests/s: its GPU is then busy all the time. More than that is refused.
	Capacity float64 `json:"capacity"`
	// QueueDelayMs is the mean time in the queue by utilization, which is offered load over capacity.
	QueueDelayMs Curve `json:"queueDelayMs"`
	// Skew 0.2: the oldest replica gets 20 % more than the mean, the newest 20 % less, those between on a line.
	Skew   float64 `json:"skew"`
	Faults []Fault `json:"faults"`
}

// Fault changes the answers of some replicas. Their share of the load stays what it was.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Pods by name, or a Share of the model's replicas, the oldest first.
	Pods  []string `json:"pods,omitempty"`
	Share float64  `json:"share,omitempty"`
	// Seconds of the script; without UntilSeconds it lasts.
	FromSeconds  float64  `json:"fromSeconds"`
	UntilSeconds *float64 `json:"untilSeconds,omitempty"`
}

// FaultKind is what is wrong with an answer.
type FaultKind string

const (
	// Refuse closes the port; connections end.
	Refuse FaultKind = "Refuse"
	// Error answers 500 to everything.
	Error FaultKind = "Error"
	// Hang takes requests and never answers.
	Hang FaultKind = "Hang"
	// Frozen repeats the first answer that was given under the fault.
	Frozen FaultKind = "Frozen"
	// StaleGPU says that the GPU's numbers are old, and they are.
	StaleGPU FaultKind = "StaleGpu"
	// NaN and Negative are numbers that no runtime may send. NaN is no JSON either.
	NaN      FaultKind = "NaN"
	Negative FaultKind = "Negative"
	// GPUBusy shows a utilization of 100 % whatever the load is.
	GPUBusy FaultKind = "GpuBusy"
)

var faultKinds = []FaultKind{Refuse, Error, Hang, Frozen, StaleGPU, NaN, Negative, GPUBusy}

// Short queues up to three quarters of the capacity, and the steep rise after it, as a replica with a bounded queue has.
var usualQueueDelay = Curve{{0, 0.2}, {0.75, 1}, {1, 20}, {1.5, 100}}

// Parse reads a script. An error names the field.
func Parse(r io.Reader) (*Script, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var script Script
	if err := decoder.Decode(&script); err != nil {
		return nil, fmt.Errorf("load script: %w", err)
	}
	if decoder.More() {
		return nil, errors.New("load script: one JSON object is wanted, more follows it")
	}
	if script.Models == nil {
		return nil, errors.New("load script: models is missing; {} is the script without load")
	}
	for name, model := range script.Models {
		if namespace, model, found := strings.Cut(name, "/"); !found || namespace == "" || model == "" || strings.Contains(model, "/") {
			return nil, fmt.Errorf("models: %q is not NAMESPACE/NAME", name)
		}
		if err := model.check(); err != nil {
			return nil, fmt.Errorf("models.%s.%w", name, err)
		}
		if model.QueueDelayMs == nil {
			model.QueueDelayMs = usualQueueDelay
		}
		script.Models[name] = model
	}
	return &script, nil
}

func (m *Model) check() error {
	if len(m.RequestsPerSecond) == 0 {
		return errors.New("requestsPerSecond: a list of [second, requests/s] is wanted")
	}
	if err := m.RequestsPerSecond.check(); err != nil {
		return fmt.Errorf("requestsPerSecond: %w", err)
	}
	if err := m.QueueDelayMs.check(); err != nil {
		return fmt.Errorf("queueDelayMs: %w", err)
	}
	if m.Capacity <= 0 {
		return errors.New("capacity: requests/s of a replica are wanted, more than 0")
	}
	if m.Noise < 0 || m.Noise > 1 {
		return fmt.Errorf("noise: %g is not between 0 and 1", m.Noise)
	}
	if m.Skew < 0 || m.Skew > 1 {
		return fmt.Errorf("skew: %g is not between 0 and 1", m.Skew)
	}
	for i, fault := range m.Faults {
		if err := fault.check(); err != nil {
			return fmt.Errorf("faults[%d].%w", i, err)
		}
	}
	return nil
}

func (f *Fault) check() error {
	if !slices.Contains(faultKinds, f.Kind) {
		return fmt.Errorf("kind: %q is not one of %v", f.Kind, faultKinds)
	}
	if f.Share < 0 || f.Share > 1 {
		return fmt.Errorf("share: %g is not between 0 and 1", f.Share)
	}
	if (len(f.Pods) == 0) == (f.Share == 0) {
		return errors.New("pods: either names here, or a share")
	}
	if f.UntilSeconds != nil && *f.UntilSeconds <= f.FromSeconds {
		return fmt.Errorf("untilSeconds: %g is not after fromSeconds", *f.UntilSeconds)
	}
	return nil
}

// total requests/s in a second of the script. It depends on nothing else, so that a run can be repeated.
func (s *Script) total(name string, second int64) float64 {
	model := s.Models[name]
	mean := model.RequestsPerSecond.at(float64(second) + 0.5)
	noise := model.Noise * rand.New(rand.NewPCG(s.Seed^hash(name), uint64(second))).NormFloat64()
	return max(0, mean*(1+noise))
}

// share of the total that the replica gets which is number rank of count, the oldest being number 0.
func (m *Model) share(rank, count int) float64 {
	if count == 1 {
		return 1
	}
	return (1 + m.Skew*(1-2*float64(rank)/float64(count-1))) / float64(count)
}

// fault of a replica at a time in seconds of the script; the first of the list that holds.
func (m *Model) fault(pod string, rank, count int, at float64) *Fault {
	for i := range m.Faults {
		f := &m.Faults[i]
		if at < f.FromSeconds || f.UntilSeconds != nil && at >= *f.UntilSeconds {
			continue
		}
		// Any share is of one replica at least.
		if f.Share > 0 && rank < max(1, int(math.Round(f.Share*float64(count)))) || slices.Contains(f.Pods, pod) {
			return f
		}
	}
	return nil
}
