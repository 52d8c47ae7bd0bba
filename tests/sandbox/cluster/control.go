package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sort"
	"strings"
	"syscall"
	"time"
)

// NodeRequest is what a simulated cloud says of a machine that it starts.
type NodeRequest struct {
	Name       string            `json:"name"`
	ProviderID string            `json:"providerId"`
	Labels     map[string]string `json:"labels"`
	Taints     []Taint           `json:"taints"`
}

// Taint that the node registers with.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"`
}

// NodeInfo is what the control socket says of a node.
type NodeInfo struct {
	Name       string `json:"name"`
	ProviderID string `json:"providerId"`
	Address    string `json:"address"`
	State      string `json:"state"`
}

var (
	errExists = errors.New("a node of that name runs with another provider id")
	errFull   = fmt.Errorf("%d real GPU nodes run already", MaxGPUNodes)
)

// serveControl answers on the unix socket until the end.
func (s *supervisor) serveControl() {
	_ = os.Remove(s.layout.Control())
	listener, err := net.Listen("unix", s.layout.Control())
	if err != nil {
		fmt.Fprintln(os.Stderr, "control socket:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, http.Serve(listener, s.routes()))
	os.Exit(1)
}

func (s *supervisor) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		ready := s.ready
		s.mu.Unlock()
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /nodes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, s.list())
	})
	mux.HandleFunc("POST /nodes", s.create)
	mux.HandleFunc("DELETE /nodes/{name}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == SystemNode {
			http.Error(w, "the system node stays", http.StatusForbidden)
			return
		}
		s.stopNode(r.PathValue("name"))
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /images/{file}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.importImage(r.PathValue("file")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.Handle("/load-script", s.responder())
	for verb, signal := range map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP, "cont": syscall.SIGCONT} {
		mux.HandleFunc("POST /"+verb+"/{name}", func(w http.ResponseWriter, r *http.Request) {
			if err := s.signal(r.PathValue("name"), signal); err != nil {
				http.Error(w, err.Error(), http.StatusNotFound)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	return mux
}

func (s *supervisor) create(w http.ResponseWriter, r *http.Request) {
	var request NodeRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&request); err != nil || request.Name == "" {
		http.Error(w, "the body is a node: name, providerId, labels, taints", http.StatusBadRequest)
		return
	}
	info, created, err := s.addNode(request)
	switch {
	case errors.Is(err, errExists):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, errFull):
		http.Error(w, err.Error(), http.StatusTooManyRequests)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case created:
		answer(w, http.StatusCreated, info)
	default:
		answer(w, http.StatusOK, info)
	}
}

// responder passes a request on, to the component that knows what a load script is.
func (s *supervisor) responder() http.Handler {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.layout.Responder())
	}
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "responder"}) },
		Transport: &http.Transport{DialContext: dial},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the responder does not answer: "+err.Error(), http.StatusServiceUnavailable)
		},
	}
}

func (s *supervisor) list() []NodeInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []NodeInfo{}
	for _, node := range s.nodes {
		list = append(list, node.info())
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// ControlClient speaks HTTP to the control socket; the host in its URLs does not matter.
func ControlClient(l Layout) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.Control())
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: 2 * time.Minute}
}

// Post to the control socket, without a body.
func Post(l Layout, path string) error {
	response, err := ControlClient(l).Post("http://sandbox"+path, "application/json", nil)
	if err != nil {
		return fmt.Errorf("no sandbox answers: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		text, _ := io.ReadAll(response.Body)
		return errors.New(strings.TrimSpace(string(text)))
	}
	return nil
}
