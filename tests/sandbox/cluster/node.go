package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// realNode has a kubelet and a containerd of its own.
type realNode struct {
	request NodeRequest
	// Number chooses bridge and addresses; 1 is the system node.
	number int
	state  string
	// life: a stop waits until a start is over.
	life sync.Mutex
}

func (n *realNode) address() string { return fmt.Sprintf("198.19.%d.1", n.number) }
func (n *realNode) bridge() string  { return fmt.Sprintf("node%d", n.number) }
func (n *realNode) cgroup() string  { return fmt.Sprintf("%s%d", CgroupPrefix, n.number) }
func (n *realNode) socket() string  { return fmt.Sprintf("/run/node%d/containerd.sock", n.number) }

func (n *realNode) info() NodeInfo {
	return NodeInfo{n.request.Name, n.request.ProviderID, n.address(), n.state}
}

// addNode starts a GPU node, unless it runs already.
func (s *supervisor) addNode(request NodeRequest) (NodeInfo, bool, error) {
	s.mu.Lock()
	if node := s.nodes[request.Name]; node != nil {
		defer s.mu.Unlock()
		if node.request.ProviderID != request.ProviderID || node.state == "Stopping" {
			return NodeInfo{}, false, errExists
		}
		return node.info(), false, nil
	}
	number, free := s.freeNumber()
	if !free {
		s.mu.Unlock()
		return NodeInfo{}, false, errFull
	}
	node := s.register(request, number)
	s.mu.Unlock()
	info, err := s.startNode(node)
	return info, true, err
}

// freeNumber and register are called with the lock held, both in one go.
func (s *supervisor) freeNumber() (int, bool) {
	used := map[int]bool{}
	for _, node := range s.nodes {
		used[node.number] = true
	}
	for number := 2; number < 2+MaxGPUNodes; number++ {
		if !used[number] {
			return number, true
		}
	}
	return 0, false
}

func (s *supervisor) register(request NodeRequest, number int) *realNode {
	node := &realNode{request: request, number: number, state: "Starting"}
	s.nodes[request.Name] = node
	return node
}

func (s *supervisor) startNode(node *realNode) (NodeInfo, error) {
	node.life.Lock()
	err := s.launch(node)
	s.mu.Lock()
	if node.state == "Starting" {
		node.state = "Running"
	}
	s.mu.Unlock()
	node.life.Unlock()
	if err != nil {
		s.stopNode(node.request.Name)
		return NodeInfo{}, err
	}
	return node.info(), nil
}

func (s *supervisor) isLeaving(node *realNode) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return node.state == "Stopping"
}

func (s *supervisor) launch(node *realNode) error {
	if err := makeCgroups(node.cgroup()); err != nil {
		return err
	}
	if err := run([][]string{
		{"ip", "link", "add", node.bridge(), "type", "bridge"},
		{"ip", "address", "add", node.address() + "/24", "dev", node.bridge()},
		{"ip", "link", "set", node.bridge(), "up"},
	}); err != nil {
		return err
	}
	if err := s.writeNodeFiles(node); err != nil {
		return err
	}
	home := s.layout.node(node.request.Name)
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	s.start("containerd-"+node.request.Name, []string{containerd, "--config", filepath.Join(home, "containerd.toml")}, nil)
	answers := func() bool { return s.ctr(node, "version") == nil }
	if err := until(30*time.Second, answers); err != nil {
		return fmt.Errorf("containerd of %s: %w", node.request.Name, err)
	}
	images, _ := filepath.Glob(filepath.Join(s.layout.Images(), "*.tar"))
	for _, image := range images {
		if err := s.ctr(node, "-n", "k8s.io", "images", "import", "--local", image); err != nil {
			return err
		}
	}
	if s.isLeaving(node) {
		return fmt.Errorf("%s was stopped while it started", node.request.Name)
	}
	s.start("kubelet-"+node.request.Name, append([]string{s.self, "kubelet"}, s.kubeletArgs(node)...), nil)
	return nil
}

func (s *supervisor) ctr(node *realNode, args ...string) error {
	output, err := exec.Command("ctr", append([]string{"--address", node.socket(), "--connect-timeout", "2s"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// importImage into every node that runs; later ones import it when they start.
func (s *supervisor) importImage(file string) error {
	s.mu.Lock()
	nodes := []*realNode{}
	for _, node := range s.nodes {
		nodes = append(nodes, node)
	}
	s.mu.Unlock()
	for _, node := range nodes {
		path := filepath.Join(s.layout.Images(), filepath.Base(file))
		if err := s.ctr(node, "-n", "k8s.io", "images", "import", "--local", path); err != nil {
			return err
		}
	}
	return nil
}

// stopNode as when the power goes: kubelet, containerd and all containers end. The Node object stays.
func (s *supervisor) stopNode(name string) {
	s.mu.Lock()
	node := s.nodes[name]
	if node == nil || node.state == "Stopping" {
		s.mu.Unlock()
		return
	}
	node.state = "Stopping"
	s.mu.Unlock()
	node.life.Lock()
	defer node.life.Unlock()
	s.end("kubelet-"+name, 0)
	s.end("containerd-"+name, 0)
	killShims(node)
	unmountBelow(s.layout.node(name), fmt.Sprintf("/run/node%d", node.number))
	_ = exec.Command("ip", "link", "delete", node.bridge()).Run()
	// What was being forked during one pass is killed in the next.
	_ = until(10*time.Second, func() bool {
		killCgroup(node.cgroup())
		return removeCgroupsOf(node.cgroup()) == nil
	})
	unmountBelow(s.layout.node(name), fmt.Sprintf("/run/node%d", node.number))
	_ = os.RemoveAll(s.layout.node(name))
	_ = os.RemoveAll(fmt.Sprintf("/run/node%d", node.number))
	s.mu.Lock()
	delete(s.nodes, name)
	s.mu.Unlock()
}

// killShims ends containerd's shims of a node: they outlive it on purpose. They carry its socket on their command line.
func killShims(node *realNode) {
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), node.socket()) || !strings.Contains(string(text), "containerd-shim") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(path)), "%d", &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func unmountBelow(roots ...string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 2 {
			continue
		}
		for _, root := range roots {
			if strings.HasPrefix(fields[1], root+"/") {
				_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
			}
		}
	}
}
