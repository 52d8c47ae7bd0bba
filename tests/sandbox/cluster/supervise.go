package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// A component that ends is started again after a pause that doubles, unless it ran for long.
const (
	shortestPause = 100 * time.Millisecond
	longestPause  = 5 * time.Second
)

// supervisor starts the components, and starts them again when they end.
type supervisor struct {
	layout Layout
	self   string
	ca     *authority
	client kubernetes.Interface

	mu       sync.Mutex
	children map[string]*child
	nodes    map[string]*realNode
	ready    bool
}

// child is a process that is kept running until it is told to end.
type child struct {
	command []string
	env     []string
	process *os.Process
	stopped bool
	ended   chan struct{}
}

// Supervise runs the cluster until it is killed.
func Supervise(l Layout) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ca, err := writeConfiguration(l)
	if err != nil {
		return err
	}
	s := &supervisor{layout: l, self: self, ca: ca, children: map[string]*child{}, nodes: map[string]*realNode{}}
	go s.serveControl()
	for _, p := range controlPlane(l) {
		if p.name == "kube-controller-manager" {
			// The rest would only fill its log while the API server is not there.
			if err := s.waitForAPI(); err != nil {
				return err
			}
		}
		s.start(p.name, append([]string{self, p.name}, p.args...), nil)
	}
	node := NodeRequest{Name: SystemNode, Labels: map[string]string{"pinnace.dev/sandbox-system": "true"}}
	s.mu.Lock()
	system := s.register(node, 1)
	s.mu.Unlock()
	if _, err := s.startNode(system); err != nil {
		return fmt.Errorf("system node: %w", err)
	}
	if err := s.waitForNode(SystemNode); err != nil {
		return err
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	select {}
}

// start keeps a process running under a name.
func (s *supervisor) start(name string, command, env []string) {
	c := &child{command: command, env: env, ended: make(chan struct{})}
	s.mu.Lock()
	s.children[name] = c
	s.mu.Unlock()
	go s.keep(name, c)
}

func (s *supervisor) keep(name string, c *child) {
	defer close(c.ended)
	pause := shortestPause
	for {
		started := time.Now()
		log, err := os.OpenFile(s.layout.Log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			fmt.Fprintln(os.Stderr, name, err)
			return
		}
		command := exec.Command(c.command[0], c.command[1:]...)
		command.Env = append(os.Environ(), c.env...)
		command.Stdout, command.Stderr = log, log
		s.mu.Lock()
		if c.stopped {
			s.mu.Unlock()
			log.Close()
			return
		}
		err = command.Start()
		c.process = command.Process
		s.mu.Unlock()
		if err == nil {
			err = command.Wait()
		}
		log.Close()
		s.mu.Lock()
		stopped := c.stopped
		s.mu.Unlock()
		if stopped {
			return
		}
		if time.Since(started) > longestPause {
			pause = shortestPause
		}
		fmt.Fprintf(os.Stderr, "%s ended (%v), started again in %s\n", name, err, pause)
		time.Sleep(pause)
		pause = min(2*pause, longestPause)
	}
}

// end stops a process for good: SIGTERM, and SIGKILL after the grace.
func (s *supervisor) end(name string, grace time.Duration) {
	s.mu.Lock()
	c := s.children[name]
	if c == nil {
		s.mu.Unlock()
		return
	}
	delete(s.children, name)
	c.stopped = true
	process := c.process
	s.mu.Unlock()
	if process != nil {
		_ = process.Signal(syscall.SIGTERM)
		select {
		case <-c.ended:
		case <-time.After(grace):
			_ = process.Kill()
		}
	}
	<-c.ended
}

// signal one component, for tests: SIGKILL (it is started again), SIGSTOP, SIGCONT.
func (s *supervisor) signal(name string, signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.children[name]
	if c == nil || c.process == nil {
		return fmt.Errorf("no component %q runs", name)
	}
	return c.process.Signal(signal)
}

func (s *supervisor) waitForAPI() error {
	config, err := clientcmd.BuildConfigFromFlags("", s.layout.Kubeconfig())
	if err != nil {
		return err
	}
	config.Timeout = 10 * time.Second
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	return until(startTimeout, func() bool {
		_, err := s.client.CoreV1().Namespaces().Get(context.Background(), "kube-system", metav1.GetOptions{})
		return err == nil
	})
}

func (s *supervisor) waitForNode(name string) error {
	return until(startTimeout, func() bool {
		node, err := s.client.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				_, err := s.client.CoreV1().ServiceAccounts("default").Get(context.Background(), "default", metav1.GetOptions{})
				return err == nil
			}
		}
		return false
	})
}
