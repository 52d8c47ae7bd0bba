package responder

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFaultsOfNumbers(t *testing.T) {
	const base = `"requestsPerSecond": [[0, 100], [100, 200]], "capacity": 1000, "faults": [{"share": 0.5, "fromSeconds": 10, "untilSeconds": 30, "kind": "%s"}]`
	check := func(kind FaultKind, assert func(t *testing.T, first, later load, text string)) {
		t.Run(string(kind), func(t *testing.T) {
			f := fleetOf(t, 2, fmt.Sprintf(base, kind))
			f.tick(after(12))
			before := loadOf(t, f, "u1", 12)
			answer, _ := f.respond("u0", after(12))
			var first, later load
			_ = json.Unmarshal(answer.load, &first)
			f.tick(after(20))
			answer, _ = f.respond("u0", after(20))
			_ = json.Unmarshal(answer.load, &later)
			assert(t, first, later, string(answer.load))
			if loadOf(t, f, "u1", 20).RequestsPerSecond.Offered[0] <= before.RequestsPerSecond.Offered[0] {
				t.Error("the other replica has it too")
			}
			f.tick(after(31))
			healed := loadOf(t, f, "u0", 31)
			near(t, "healed", healed.RequestsPerSecond.Offered[0], 64)
			if healed.GPU.Stale || healed.GPU.UtilizationPercent > 10 || healed.UptimeSeconds != 31 {
				t.Errorf("%+v", healed)
			}
		})
	}
	check(Frozen, func(t *testing.T, first, later load, _ string) {
		if a, b := fmt.Sprint(first.RequestsPerSecond, first.UptimeSeconds), fmt.Sprint(later.RequestsPerSecond, later.UptimeSeconds); a != b {
			t.Errorf("%s, then %s", a, b)
		}
	})
	check(StaleGPU, func(t *testing.T, first, later load, _ string) {
		if !later.GPU.Stale || later.GPU.AgeSeconds != 13 || later.GPU.UtilizationPercent != first.GPU.UtilizationPercent {
			t.Errorf("%+v", later.GPU)
		}
		near(t, "the rest is fresh", later.UptimeSeconds, 20)
	})
	check(NaN, func(t *testing.T, _, _ load, text string) {
		if !strings.Contains(text, `"offered":[NaN,NaN]`) || !strings.Contains(text, `"utilizationPercent":NaN`) {
			t.Error(text)
		}
	})
	check(Negative, func(t *testing.T, _, later load, _ string) {
		if later.RequestsPerSecond.Offered[0] >= 0 || later.GPU.UtilizationPercent >= 0 {
			t.Errorf("%+v", later)
		}
	})
	check(GPUBusy, func(t *testing.T, _, later load, _ string) {
		near(t, "gpu", later.GPU.UtilizationPercent, 100)
		near(t, "busy", later.BusyPercent, 5.85)
	})
}

func TestFaultsChooseReplicas(t *testing.T) {
	chosen := func(faults string, at float64) string {
		script := parse(t, `"requestsPerSecond": [[0, 1]], "capacity": 1, "faults": `+faults)
		m, names := script.Models[model], ""
		for rank := range 10 {
			if m.fault(fmt.Sprint("p", rank), rank, 10, at) != nil {
				names += fmt.Sprint(rank)
			}
		}
		return names
	}
	for _, c := range []struct {
		faults string
		at     float64
		want   string
	}{
		{`[{"kind": "Hang", "share": 0.3}]`, 0, "012"},
		{`[{"kind": "Hang", "share": 0.01}]`, 0, "0"},
		{`[{"kind": "Hang", "share": 1}]`, 0, "0123456789"},
		{`[{"kind": "Hang", "pods": ["p4", "p9", "other"]}]`, 0, "49"},
		{`[{"kind": "Hang", "share": 1, "fromSeconds": 5}]`, 4.9, ""},
		{`[{"kind": "Hang", "share": 1, "untilSeconds": 5}]`, 5, ""},
		{`[{"kind": "Hang", "share": 0.1}, {"kind": "Error", "pods": ["p3"]}]`, 0, "03"},
	} {
		if got := chosen(c.faults, c.at); got != c.want {
			t.Errorf("%s at %g: %q, want %q", c.faults, c.at, got, c.want)
		}
	}
}

func TestFaultsOfConnections(t *testing.T) {
	now := after(1)
	f := fleetOf(t, 3, `"requestsPerSecond": [[0, 1]], "capacity": 1, "faults": [
		{"kind": "Refuse", "pods": ["p0"]}, {"kind": "Error", "pods": ["p1"]}, {"kind": "Hang", "pods": ["p2"]}]`)
	free, err := net.Listen("tcp", "127.0.0.10:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	_ = free.Close()
	servers := &listeners{port: port, open: map[string]server{}, respond: func(uid string) (response, bool) { return f.respond(uid, now) }}
	servers.set(f.addresses(now))
	t.Cleanup(func() { servers.set(nil) })
	client := &http.Client{Timeout: 200 * time.Millisecond}
	get := func(pod int, path string) string {
		answer, err := client.Get(fmt.Sprintf("http://127.0.0.%d:%d%s", pod+10, port, path))
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return fmt.Sprint(answer.StatusCode, " ", string(body))
	}
	for pod, want := range []string{"connection refused", "500 ", "Client.Timeout"} {
		if got := get(pod, "/load"); !strings.Contains(got, want) {
			t.Errorf("pod %d: %s, want %s", pod, got, want)
		}
	}
	f.setScript(&Script{})
	servers.set(f.addresses(now))
	for path, want := range map[string]string{
		"/load": "200 {", "/v2/health/live": "200", "/v2/health/ready": "200", "/metrics": "pinnace_ready 1", "/other": "404",
	} {
		if got := get(0, path); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	// The pod goes, and another one gets its address.
	next := pods(4)[3:]
	next[0].Address = "127.0.0.10"
	f.observe(next)
	servers.set(f.addresses(now))
	var l load
	if err := json.Unmarshal([]byte(strings.TrimPrefix(get(0, "/load"), "200 ")), &l); err != nil || l.BootID != fmt.Sprintf("%016x", hash("u3")) {
		t.Errorf("%v %+v", err, l)
	}
	if got := get(1, "/load"); !strings.Contains(got, "connection refused") {
		t.Error("a pod that is gone answers:", got)
	}
}
