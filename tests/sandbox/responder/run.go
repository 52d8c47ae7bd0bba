package responder

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// modelLabel and revisionAnnotation are the operator's.
	modelLabel         = "pinnace.dev/model"
	revisionAnnotation = "pinnace.dev/revision"
	gpuResource        = "nvidia.com/gpu"
	maxScriptBytes     = 4 << 20
)

// Config says where everything is.
type Config struct {
	Kubeconfig string
	// Range of the addresses of pods on KWOK nodes.
	Range netip.Prefix
	// Socket on which scripts are set, and the file that keeps the one in force when the process is killed.
	Socket string
	Script string
}

// Run answers until the process is killed.
func Run(config Config) error {
	r := &responder{config: config, fleet: newFleet(time.Now()), changed: make(chan struct{}, 1)}
	if err := r.restore(); err != nil {
		return err
	}
	_ = os.Remove(config.Socket)
	socket, err := net.Listen("unix", config.Socket)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- http.Serve(socket, r.routes()) }()
	go func() { ended <- r.follow() }()
	return <-ended
}

type responder struct {
	config  Config
	fleet   *fleet
	changed chan struct{}
}

// follow the pods and the clock.
func (r *responder) follow() error {
	rest, err := clientcmd.BuildConfigFromFlags("", r.config.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return err
	}
	models := informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = modelLabel })
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, models)
	pods := factory.Core().V1().Pods()
	_, err = pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { r.wake() },
		UpdateFunc: func(any, any) { r.wake() },
		DeleteFunc: func(any) { r.wake() },
	})
	if err != nil {
		return err
	}
	factory.Start(context.Background().Done())
	respond := func(uid string) (response, bool) { return r.fleet.respond(uid, time.Now()) }
	servers := &listeners{port: adminPort, respond: respond, open: map[string]server{}}
	second := time.NewTicker(time.Second)
	for {
		select {
		case <-r.changed:
			list, err := r.list(pods.Lister())
			if err != nil {
				return err
			}
			r.fleet.observe(list)
		case <-second.C:
			r.fleet.tick(time.Now())
		}
		// Faults come and go with the clock too.
		servers.set(r.fleet.addresses(time.Now()))
	}
}

// wake is level-triggered: however many changes there were, the pods are listed once after the last.
func (r *responder) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *responder) list(pods listers.PodLister) ([]Replica, error) {
	all, err := pods.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	var found []Replica
	for _, pod := range all {
		address, err := netip.ParseAddr(pod.Status.PodIP)
		if err == nil && r.config.Range.Contains(address) && pod.Status.Phase == corev1.PodRunning {
			found = append(found, observed(pod))
		}
	}
	return found, nil
}

func observed(pod *corev1.Pod) Replica {
	replica := Replica{
		Model:    pod.Namespace + "/" + pod.Labels[modelLabel],
		Name:     pod.Name,
		UID:      string(pod.UID),
		Address:  pod.Status.PodIP,
		Revision: pod.Annotations[revisionAnnotation],
		Draining: pod.DeletionTimestamp != nil,
		Created:  pod.CreationTimestamp.Time,
		Started:  pod.CreationTimestamp.Time,
	}
	if pod.Status.StartTime != nil {
		replica.Started = pod.Status.StartTime.Time
	}
	for _, container := range pod.Spec.Containers {
		gpus := container.Resources.Limits[gpuResource]
		replica.GPUs += int(gpus.Value())
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			replica.Ready = condition.Status == corev1.ConditionTrue
		}
	}
	return replica
}

func (r *responder) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /load-script", func(w http.ResponseWriter, _ *http.Request) { answer(w, r.fleet.currentScript()) })
	mux.HandleFunc("POST /load-script", func(w http.ResponseWriter, request *http.Request) {
		script, err := Parse(io.LimitReader(request.Body, maxScriptBytes))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if script.StartedAt.IsZero() {
			script.StartedAt = time.Now()
		}
		if err := r.keep(script); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		r.fleet.setScript(script)
		// Ports that the script closes or opens.
		r.wake()
		answer(w, script)
	})
	return mux
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

// keep the script for a process that comes after this one.
func (r *responder) keep(script *Script) error {
	text, err := json.Marshal(script)
	if err != nil {
		return err
	}
	part := filepath.Clean(r.config.Script) + ".part"
	if err := os.WriteFile(part, text, 0o644); err != nil {
		return err
	}
	return os.Rename(part, r.config.Script)
}

func (r *responder) restore() error {
	file, err := os.Open(r.config.Script)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	script, err := Parse(file)
	if err != nil {
		return fmt.Errorf("%s: %w", r.config.Script, err)
	}
	r.fleet.setScript(script)
	return nil
}
