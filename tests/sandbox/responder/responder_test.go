package responder

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const model = "recsys/ranker"

var epoch = time.Unix(1_800_000_000, 0)

func after(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// parse a script of one model that starts at epoch.
func parse(t *testing.T, fields string) *Script {
	t.Helper()
	script, err := Parse(strings.NewReader(fmt.Sprintf(`{"seed": 7, "models": {%q: {%s}}}`, model, fields)))
	if err != nil {
		t.Fatal(err)
	}
	script.StartedAt = epoch
	return script
}

// pods that are Ready, the first one the oldest.
func pods(count int) []Replica {
	var all []Replica
	for i := range count {
		all = append(all, Replica{
			Model: model, Name: fmt.Sprintf("p%d", i), UID: fmt.Sprintf("u%d", i), Address: fmt.Sprintf("127.0.0.%d", i+10),
			GPUs: 1, Ready: true, Created: after(float64(i - 100)), Started: after(0),
		})
	}
	return all
}

func fleetOf(t *testing.T, count int, fields string) *fleet {
	t.Helper()
	f := newFleet(epoch)
	f.setScript(parse(t, fields))
	f.observe(pods(count))
	return f
}

func loadOf(t *testing.T, f *fleet, uid string, at float64) load {
	t.Helper()
	answer, found := f.respond(uid, after(at))
	if !found {
		t.Fatalf("%s is not there", uid)
	}
	var l load
	if err := json.Unmarshal(answer.load, &l); err != nil {
		t.Fatalf("%v: %s", err, answer.load)
	}
	return l
}

func near(t *testing.T, what string, got number, want float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > 1e-3*max(1, want) {
		t.Errorf("%s: %g, want %g", what, got, want)
	}
}

func TestCurves(t *testing.T) {
	curve := Curve{{0, 10}, {10, 20}, {10, 50}, {20, 0}}
	for x, want := range map[float64]float64{-5: 10, 0: 10, 5: 15, 9.99: 19.99, 10: 50, 15: 25, 20: 0, 99: 0} {
		if got := curve.at(x); math.Abs(got-want) > 1e-9 {
			t.Errorf("at %g: %g, want %g", x, got, want)
		}
	}
}

func TestAScriptThatIsWrongIsRefusedByField(t *testing.T) {
	model := func(fields string) string {
		return `{"models": {"a/b": {"requestsPerSecond": [[0, 1]], "capacity": 1` + fields + `}}}`
	}
	for text, named := range map[string]string{
		`nonsense`:                             "load script",
		`{}`:                                   "models is missing",
		`{"models": {}} {}`:                    "more follows",
		`{"model": {}}`:                        `"model"`,
		`{"models": {"a/b": {"capacity": 1}}}`: "models.a/b.requestsPerSecond",
		`{"models": {"a/b": {"requestsPerSecond": [[0, 1]]}}}`:               "models.a/b.capacity",
		`{"models": {"a/b": {"requestsPerSecond": [[0]], "capacity": 1}}}`:   "[x, y]",
		`{"models": {"ab": {"requestsPerSecond": [[0, 1]], "capacity": 1}}}`: "NAMESPACE/NAME",
		model(`, "noise": 2`):                                                  "models.a/b.noise",
		model(`, "skew": -1`):                                                  "models.a/b.skew",
		model(`, "queueDelayMs": [[1, 0], [0, 0]]`):                            "models.a/b.queueDelayMs: the points",
		model(`, "queueDelayMs": [[1, -1]]`):                                   "negative",
		model(`, "faults": [{"kind": "Bad", "share": 1}]`):                     "models.a/b.faults[0].kind",
		model(`, "faults": [{"kind": "Hang"}]`):                                "models.a/b.faults[0].pods",
		model(`, "faults": [{"kind": "Hang", "share": 2}]`):                    "models.a/b.faults[0].share",
		model(`, "faults": [{"kind": "Hang", "share": 1, "untilSeconds": 0}]`): "models.a/b.faults[0].untilSeconds",
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), named) {
			t.Errorf("%s: %v, want %q", text, err, named)
		}
	}
}

func TestTheTotalIsDividedOverTheReadyReplicas(t *testing.T) {
	f := fleetOf(t, 4, `"requestsPerSecond": [[0, 100], [10, 100], [10, 400]], "capacity": 80`)
	f.tick(after(10))
	one := loadOf(t, f, "u0", 10.5)
	near(t, "6 s", one.RequestsPerSecond.Offered[0], 25)
	near(t, "60 s", one.RequestsPerSecond.Offered[1], 25)
	near(t, "uptime", one.UptimeSeconds, 10.5)
	near(t, "busy", one.BusyPercent, 100*25./80)
	near(t, "gpu", one.GPU.UtilizationPercent, 100*25./80)
	near(t, "age", one.GPU.AgeSeconds, 0.5)
	f.tick(after(16))
	one = loadOf(t, f, "u3", 16)
	near(t, "6 s after the step", one.RequestsPerSecond.Offered[0], 100)
	near(t, "60 s after the step", one.RequestsPerSecond.Offered[1], (10*25+6*100)/16.)
	near(t, "answered", one.RequestsPerSecond.Answered[0], 80)
	near(t, "refused", one.RequestsPerSecond.Refused[0], 20)
	near(t, "gpu at most", one.GPU.UtilizationPercent, 100)

	// One is not Ready any more, and one came: windows are as long as a replica was Ready.
	changed := append(pods(5)[1:], Replica{})
	changed[4] = pods(1)[0]
	changed[4].Ready = false
	f.observe(changed)
	f.tick(after(20))
	near(t, "an old one", loadOf(t, f, "u1", 20).RequestsPerSecond.Offered[1], (10*25+10*100)/20.)
	near(t, "a new one", loadOf(t, f, "u4", 20).RequestsPerSecond.Offered[1], 100)
	gone := loadOf(t, f, "u0", 20)
	near(t, "one that is not Ready", gone.RequestsPerSecond.Offered[0], 0)
	if gone.Ready || gone.LatencyP99Ms != nil {
		t.Errorf("%+v", gone)
	}
}

func TestSkewIsByAgeAndKeepsTheTotal(t *testing.T) {
	f := fleetOf(t, 3, `"requestsPerSecond": [[0, 300]], "capacity": 1000, "skew": 0.4`)
	f.tick(after(6))
	for i, want := range []float64{140, 100, 60} {
		near(t, fmt.Sprint("replica ", i), loadOf(t, f, fmt.Sprint("u", i), 6).RequestsPerSecond.Offered[0], want)
	}
}

func TestNoiseIsOfTheSeedAlone(t *testing.T) {
	script := parse(t, `"requestsPerSecond": [[0, 100]], "capacity": 1, "noise": 0.1`)
	var sum, squares float64
	for second := range int64(10000) {
		total := script.total(model, second)
		if total != script.total(model, second) {
			t.Fatal("asked twice, it differs")
		}
		sum, squares = sum+total, squares+(total-100)*(total-100)
	}
	if mean, deviation := sum/10000, math.Sqrt(squares/10000); math.Abs(mean-100) > 0.5 || math.Abs(deviation-10) > 0.5 {
		t.Errorf("mean %g, deviation %g", mean, deviation)
	}
	first := script.total(model, 1)
	if script.Seed++; script.total(model, 1) == first {
		t.Error("the seed changes nothing")
	}
}

func TestQueueDelayFollowsUtilization(t *testing.T) {
	f := fleetOf(t, 1, `"requestsPerSecond": [[0, 50]], "capacity": 100, "queueDelayMs": [[0, 0], [1, 10]]`)
	f.tick(after(6))
	one := loadOf(t, f, "u0", 6)
	near(t, "p99", *one.LatencyP99Ms, 5*math.Log(100)+serviceMs)
	var total, below5 int
	for i, count := range one.QueueDelayCounts {
		total += count
		if i <= 5 {
			below5 += count
		}
	}
	// 300 requests; of an exponential distribution 63 % are below its mean.
	if total != 300 || below5 < 188 || below5 > 191 || len(one.QueueDelayCounts) != 13 {
		t.Errorf("%v", one.QueueDelayCounts)
	}
	f.setScript(&Script{})
	f.tick(after(12))
	if idle := loadOf(t, f, "u0", 12); idle.InFlight != 0 || idle.RequestsPerSecond.Offered[0] != 0 || idle.GPU == nil {
		t.Errorf("a model without a script: %+v", idle)
	}
}

func TestAPauseIsMadeUpFor(t *testing.T) {
	f := fleetOf(t, 1, `"requestsPerSecond": [[0, 0], [3600, 3600]], "capacity": 1e6`)
	f.tick(after(2))
	f.tick(after(600))
	near(t, "6 s", loadOf(t, f, "u0", 600).RequestsPerSecond.Offered[0], 597)
	near(t, "60 s", loadOf(t, f, "u0", 600).RequestsPerSecond.Offered[1], 570)
}

func TestAnswersAreSmallAndWithoutAGPUSayNothingOfIt(t *testing.T) {
	f := fleetOf(t, 1, `"requestsPerSecond": [[0, 123456.789]], "capacity": 100000, "noise": 0.1`)
	f.tick(after(60))
	answer, _ := f.respond("u0", after(60))
	if len(answer.load) > 1024 {
		t.Errorf("%d bytes", len(answer.load))
	}
	bare := pods(1)
	bare[0].GPUs = 0
	f.observe(bare)
	if one := loadOf(t, f, "u0", 60); one.GPU != nil {
		t.Errorf("%+v", one.GPU)
	}
}

func TestScriptsAreSetAndSurviveTheProcess(t *testing.T) {
	config := Config{Script: filepath.Join(t.TempDir(), "load-script.json")}
	start := func() *responder {
		r := &responder{config: config, fleet: newFleet(epoch), changed: make(chan struct{}, 1)}
		if err := r.restore(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	ask := func(r *responder, method, body string) (int, Script) {
		recorder := httptest.NewRecorder()
		r.routes().ServeHTTP(recorder, httptest.NewRequest(method, "/load-script", strings.NewReader(body)))
		var script Script
		_ = json.Unmarshal(recorder.Body.Bytes(), &script)
		return recorder.Code, script
	}
	first := start()
	if code, _ := ask(first, "POST", `{"models": {"a": {}}}`); code != http.StatusBadRequest {
		t.Fatal(code)
	}
	code, set := ask(first, "POST", `{"seed": 3, "models": {"a/b": {"requestsPerSecond": [[0, 1]], "capacity": 5}}}`)
	if code != http.StatusOK || time.Since(set.StartedAt) > time.Minute {
		t.Fatal(code, set)
	}
	_, kept := ask(start(), "GET", "")
	if !kept.StartedAt.Equal(set.StartedAt) || kept.Seed != 3 || kept.Models["a/b"].Capacity != 5 {
		t.Fatalf("%+v", kept)
	}
	// With the same start it goes on, without one it starts anew.
	again, _ := json.Marshal(kept)
	if _, repeated := ask(first, "POST", string(again)); !repeated.StartedAt.Equal(set.StartedAt) {
		t.Fatalf("%+v", repeated)
	}
}

func TestAPodIsRead(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "recsys", Name: "p", UID: "u",
			Labels: map[string]string{modelLabel: "ranker"}, Annotations: map[string]string{revisionAnnotation: "r1"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{gpuResource: resource.MustParse("2")}}}, {},
		}},
		Status: corev1.PodStatus{
			PodIP:      "198.19.128.1",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	got := observed(pod)
	if got.Model != model || got.Revision != "r1" || got.GPUs != 2 || !got.Ready || got.Draining || got.Address != "198.19.128.1" {
		t.Fatalf("%+v", got)
	}
}
