package responder

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// adminPort of the runtime.
const adminPort = 8002

// listeners has a server for each address that takes connections; a pod that goes, or refuses, takes its connections
// along, as a process does.
type listeners struct {
	port    int
	respond func(uid string) (response, bool)
	open    map[string]server
}

type server struct {
	uid  string
	http *http.Server
}

// set opens and closes until exactly these addresses, each for the pod of that uid, are served.
func (l *listeners) set(wanted map[string]string) {
	for address, s := range l.open {
		if wanted[address] != s.uid {
			_ = s.http.Close()
			delete(l.open, address)
		}
	}
	for address, uid := range wanted {
		if _, open := l.open[address]; open {
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(l.port)))
		if err != nil {
			// Tried again in a second.
			fmt.Fprintln(os.Stderr, "responder:", err)
			continue
		}
		s := &http.Server{Handler: l.handler(uid), ReadHeaderTimeout: 10 * time.Second}
		l.open[address] = server{uid, s}
		go func() {
			if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				fmt.Fprintln(os.Stderr, "responder:", address, err)
			}
		}()
	}
}

// handler of the admin port of one pod.
func (l *listeners) handler(uid string) http.Handler {
	routes := map[string]func(http.ResponseWriter, response){
		"/load": func(w http.ResponseWriter, r response) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(r.load)
		},
		"/v2/health/live": func(http.ResponseWriter, response) {},
		"/v2/health/ready": func(w http.ResponseWriter, r response) {
			if !r.ready {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		},
		"/metrics": func(w http.ResponseWriter, r response) {
			ready := map[bool]int{true: 1}[r.ready]
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = fmt.Fprintf(w, "# TYPE pinnace_ready gauge\npinnace_ready %d\n", ready)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, found := l.respond(uid)
		if !found {
			// The pod went a moment ago.
			panic(http.ErrAbortHandler)
		}
		route := routes[r.URL.Path]
		switch {
		case response.fault == Refuse:
			panic(http.ErrAbortHandler)
		case response.fault == Hang:
			<-r.Context().Done()
		case response.fault == Error:
			http.Error(w, "the load script says so", http.StatusInternalServerError)
		case route == nil:
			http.NotFound(w, r)
		case r.Method != http.MethodGet:
			http.Error(w, "GET", http.StatusMethodNotAllowed)
		default:
			route(w, response)
		}
	})
}
