package responder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

const (
	loadVersion = 1
	shortWindow = 6
	// serviceMs is what a request takes once it left the queue.
	serviceMs = 3
	gpuMiB    = 22888
	// staleSeconds is the age at which the runtime says that its GPU's numbers are stale.
	staleSeconds = 5
)

// queueBoundsMs are the upper bounds of the counts of queue delays; the last count has none.
var queueBoundsMs = []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500}

// number is JSON's, and NaN, which is none.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) {
		return []byte(`"NaN"`), nil
	}
	return json.Marshal(math.Round(float64(n)*1000) / 1000)
}

// load is version 1 of what the runtime answers; each field is described there.
type load struct {
	Version           int     `json:"version"`
	BootID            string  `json:"bootId"`
	Revision          string  `json:"revision"`
	UptimeSeconds     number  `json:"uptimeSeconds"`
	Ready             bool    `json:"ready"`
	Draining          bool    `json:"draining"`
	RequestsPerSecond rates   `json:"requestsPerSecond"`
	InFlight          int     `json:"inFlight"`
	QueueDelayCounts  []int   `json:"queueDelayCounts"`
	LatencyP99Ms      *number `json:"latencyP99Ms,omitempty"`
	BusyPercent       number  `json:"busyPercent"`
	GPU               *gpu    `json:"gpu,omitempty"`
}

// rates over the short and the long window.
type rates struct {
	Offered  [2]number `json:"offered"`
	Refused  [2]number `json:"refused"`
	Answered [2]number `json:"answered"`
}

type gpu struct {
	Count              int            `json:"count"`
	Simulated          bool           `json:"simulated"`
	AgeSeconds         number         `json:"ageSeconds"`
	Stale              bool           `json:"stale"`
	UtilizationPercent number         `json:"utilizationPercent"`
	MemoryUsedMiB      int            `json:"memoryUsedMiB"`
	MemoryTotalMiB     int            `json:"memoryTotalMiB"`
	PowerWatts         number         `json:"powerWatts"`
	PowerLimitWatts    number         `json:"powerLimitWatts"`
	TemperatureCelsius int            `json:"temperatureCelsius"`
	Throttled          []string       `json:"throttled"`
	MIG                bool           `json:"mig"`
	Lost               int            `json:"lost"`
	XID                map[string]int `json:"xid"`
}

// load of a replica; the newest of its seconds ended at ticked.
func (r *replica) load(now, ticked time.Time) load {
	short := r.window(shortWindow)
	answer := load{
		Version:          loadVersion,
		BootID:           fmt.Sprintf("%016x", hash(r.UID)),
		Revision:         r.Revision,
		UptimeSeconds:    number(now.Sub(r.Started).Seconds()),
		Ready:            r.Ready,
		Draining:         r.Draining,
		QueueDelayCounts: queueDelayCounts(short),
		BusyPercent:      number(100 * busy(short)),
		GPU:              r.gpu(now.Sub(ticked)),
	}
	for i, seconds := range [2][]second{short, r.window(longWindow)} {
		offered := mean(seconds, func(s second) float64 { return s.offered })
		answered := mean(seconds, func(s second) float64 { return s.answered })
		answer.RequestsPerSecond.Offered[i] = number(offered)
		answer.RequestsPerSecond.Answered[i] = number(answered)
		answer.RequestsPerSecond.Refused[i] = number(offered - answered)
	}
	if answered := answer.RequestsPerSecond.Answered[0]; answered > 0 {
		delay := mean(short, func(s second) float64 { return s.queueDelayMs })
		// Of an exponential distribution, as below.
		p99 := number(delay*math.Log(100) + serviceMs)
		answer.LatencyP99Ms = &p99
		// Little's law.
		answer.InFlight = int(math.Round(float64(answered) * (delay + serviceMs) / 1000))
	}
	return answer
}

// text is JSON but for NaN, which stands there as other languages write it.
func (l load) text() []byte {
	text, err := json.Marshal(l)
	if err != nil {
		// Numbers, strings and lists of them.
		panic(err)
	}
	return bytes.ReplaceAll(text, []byte(`"NaN"`), []byte(`NaN`))
}

func (r *replica) window(length int) []second {
	return r.seconds[max(0, len(r.seconds)-length):]
}

func mean(seconds []second, of func(second) float64) float64 {
	if len(seconds) == 0 {
		return 0
	}
	var sum float64
	for _, s := range seconds {
		sum += of(s)
	}
	return sum / float64(len(seconds))
}

func busy(seconds []second) float64 {
	return mean(seconds, func(s second) float64 { return min(1, s.utilization) })
}

// queueDelayCounts: delays in a second are distributed exponentially around its mean.
func queueDelayCounts(seconds []second) []int {
	counts := make([]int, len(queueBoundsMs)+1)
	var total, before float64
	for _, s := range seconds {
		total += s.answered
	}
	for i := range counts {
		below := total
		if i < len(queueBoundsMs) {
			below = 0
			for _, s := range seconds {
				below += s.answered * belowBound(queueBoundsMs[i], s.queueDelayMs)
			}
		}
		// Differences of rounded sums: nothing is lost to rounding.
		counts[i] = int(math.Round(below) - math.Round(before))
		before = below
	}
	return counts
}

func belowBound(bound, mean float64) float64 {
	if mean == 0 {
		return 1
	}
	return 1 - math.Exp(-bound/mean)
}

// gpu of a pod that asks for some, with the utilization of the last second.
func (r *replica) gpu(age time.Duration) *gpu {
	if r.GPUs == 0 {
		return nil
	}
	utilization := busy(r.window(1))
	each := float64(r.GPUs)
	return &gpu{
		Count:              r.GPUs,
		Simulated:          true,
		AgeSeconds:         number(age.Seconds()),
		UtilizationPercent: number(100 * utilization),
		MemoryUsedMiB:      1024 * r.GPUs,
		MemoryTotalMiB:     gpuMiB * r.GPUs,
		PowerWatts:         number(each * (60 + 240*utilization)),
		PowerLimitWatts:    number(each * 300),
		TemperatureCelsius: 40 + int(math.Round(40*utilization)),
		Throttled:          []string{},
		XID:                map[string]int{},
	}
}

// spoil an answer as its fault wants it. Faults that are no matter of numbers are the listener's.
func spoil(answer *load, first *firstAnswer, now time.Time) {
	rates := &answer.RequestsPerSecond
	lists := []*[2]number{&rates.Offered, &rates.Refused, &rates.Answered}
	switch first.fault {
	case Frozen:
		*answer = first.load
	case NaN:
		for _, list := range lists {
			*list = [2]number{number(math.NaN()), number(math.NaN())}
		}
	case Negative:
		for _, list := range lists {
			*list = [2]number{-1 - list[0], -1 - list[1]}
		}
	}
	if answer.GPU == nil {
		return
	}
	switch first.fault {
	case NaN:
		answer.GPU.UtilizationPercent = number(math.NaN())
	case Negative:
		answer.GPU.UtilizationPercent = -1
	case GPUBusy:
		answer.GPU.UtilizationPercent = 100
		answer.GPU.PowerWatts = answer.GPU.PowerLimitWatts
	case StaleGPU:
		old := *first.load.GPU
		old.Stale, old.AgeSeconds = true, number(staleSeconds+now.Sub(first.at).Seconds())
		answer.GPU = &old
	}
}
