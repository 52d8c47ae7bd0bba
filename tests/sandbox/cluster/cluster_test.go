package cluster

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreTrustedByTheAuthority(t *testing.T) {
	layout := Layout{t.TempDir()}
	if err := layout.makeDirectories(); err != nil {
		t.Fatal(err)
	}
	ca, err := writeConfiguration(layout)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(layout.pki("apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, name := range []string{"kubernetes.default.svc", InsideAddress, KubernetesIP} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	stages, err := os.ReadFile(layout.conf("kwok.yaml"))
	if err != nil || strings.Count(string(stages), "kind: Stage") != 4 {
		t.Errorf("kwok has not its four stages: %v", err)
	}
}

func TestTheKubeletRegistersAsItWasTold(t *testing.T) {
	node := &realNode{number: 2, request: NodeRequest{
		Name: "n", ProviderID: "aws:///us-east-1a/i-1", Taints: []Taint{{Key: "k", Value: "v", Effect: "NoSchedule"}},
	}}
	text, err := kubeletConfig(Layout{"/d"}, node)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		ProviderID         string
		RegisterWithTaints []Taint
		CgroupRoot         string
		Address            string
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if config.ProviderID != node.request.ProviderID || len(config.RegisterWithTaints) != 1 || config.Address != "198.19.2.1" {
		t.Fatalf("%+v", config)
	}
	if config.CgroupRoot != "/pinnace-sandbox-2" {
		t.Fatalf("cgroup root %q", config.CgroupRoot)
	}
}

func control(t *testing.T, s *supervisor, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.routes().ServeHTTP(recorder, httptest.NewRequest(method, path, strings.NewReader(body)))
	return recorder
}

func TestTheControlSocketRefusesWhatItCannotDo(t *testing.T) {
	s := &supervisor{layout: Layout{t.TempDir()}, children: map[string]*child{}, nodes: map[string]*realNode{}}
	for number, name := range []string{SystemNode, "a", "b", "c", "d"} {
		s.nodes[name] = &realNode{request: NodeRequest{Name: name, ProviderID: "p-" + name}, number: number + 1, state: "Running"}
	}
	cases := []struct {
		method, path, body string
		code               int
	}{
		{"GET", "/ready", "", http.StatusServiceUnavailable},
		{"POST", "/nodes", `{"name":"e","providerId":"p-e"}`, http.StatusTooManyRequests},
		{"POST", "/nodes", `{"name":"a","providerId":"p-a"}`, http.StatusOK},
		{"POST", "/nodes", `{"name":"a","providerId":"other"}`, http.StatusConflict},
		{"POST", "/nodes", `{}`, http.StatusBadRequest},
		{"POST", "/nodes", `nonsense`, http.StatusBadRequest},
		{"DELETE", "/nodes/" + SystemNode, "", http.StatusForbidden},
		{"DELETE", "/nodes/unknown", "", http.StatusNoContent},
		{"POST", "/kill/unknown", "", http.StatusNotFound},
		{"POST", "/load-script", "{}", http.StatusServiceUnavailable},
	}
	for _, c := range cases {
		if got := control(t, s, c.method, c.path, c.body); got.Code != c.code {
			t.Errorf("%s %s %s: %d, want %d (%s)", c.method, c.path, c.body, got.Code, c.code, got.Body)
		}
	}
	var nodes []NodeInfo
	if err := json.Unmarshal(control(t, s, "GET", "/nodes", "").Body.Bytes(), &nodes); err != nil || len(nodes) != 5 {
		t.Fatalf("%v %v", nodes, err)
	}
}

func TestDownFindsAProcessByNumberAndStart(t *testing.T) {
	layout := Layout{t.TempDir()}
	write := func(record initProcess) {
		text, _ := json.Marshal(record)
		if err := os.WriteFile(layout.initFile(), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, running := Running(layout); running {
		t.Fatal("runs without a file")
	}
	write(initProcess{os.Getpid(), startTime(os.Getpid())})
	if pid, running := Running(layout); !running || pid != os.Getpid() {
		t.Fatal("this process is not found")
	}
	write(initProcess{os.Getpid(), "1"})
	if _, running := Running(layout); running {
		t.Fatal("a later process of the same number is taken for it")
	}
}

func TestAMachineHasRoomForOneSandbox(t *testing.T) {
	ownerFile = filepath.Join(t.TempDir(), "owner")
	first, second := Layout{t.TempDir()}, Layout{t.TempDir()}
	if err := claim(first); err != nil {
		t.Fatal(err)
	}
	if _, taken := otherOwner(second); taken {
		t.Fatal("the first does not run")
	}
	record, _ := json.Marshal(initProcess{os.Getpid(), startTime(os.Getpid())})
	if err := os.WriteFile(first.initFile(), record, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, taken := otherOwner(first); taken {
		t.Fatal("it is its own")
	}
	if other, taken := otherOwner(second); !taken || other.Root != first.Root {
		t.Fatalf("%v %v", other, taken)
	}
}

func TestTreesAreRemovedDepthFirst(t *testing.T) {
	top := filepath.Join(t.TempDir(), "a")
	if err := os.MkdirAll(filepath.Join(top, "b", "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(top); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(top); !os.IsNotExist(err) {
		t.Fatal("it is still there")
	}
}

func TestOnlyADataDirectoryIsRemoved(t *testing.T) {
	other := Layout{t.TempDir()}
	if err := os.WriteFile(other.path("precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := other.remove(); err == nil {
		t.Fatal("somebody's directory is gone")
	}
	ours := Layout{filepath.Join(t.TempDir(), "data")}
	if err := ours.makeDirectories(); err != nil {
		t.Fatal(err)
	}
	if err := ours.remove(); err != nil {
		t.Fatal(err)
	}
	if err := ours.remove(); err != nil {
		t.Fatal("removing what is gone:", err)
	}
}
