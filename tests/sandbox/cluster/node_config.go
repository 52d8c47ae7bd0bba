package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// PauseImage holds the namespaces of every pod.
const PauseImage = "localhost/pinnace-pause:dev"

func containerdConfig(home, cni string, node *realNode) string {
	return fmt.Sprintf(`version = 3
root = %q
state = "/run/node%d/state"
[grpc]
  address = %q
[ttrpc]
  address = "/run/node%d/ttrpc.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE runc cannot lower oom_score_adj, and every sandbox fails.
  restrict_oom_score_adj = true
  # Below /run/netns any "ip netns" makes them undeletable, and pods hang in Terminating.
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
    conf_dir = %q
`, filepath.Join(home, "containerd"), node.number, node.socket(), node.number, PauseImage, cni)
}

func cniConfig(home string, node *realNode) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "node", "plugins": [
  {"type": "bridge", "bridge": %q, "isDefaultGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "198.19.%d.0/24"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`, node.bridge(), filepath.Join(home, "ipam"), node.number)
}

func kubeletConfig(l Layout, node *realNode) ([]byte, error) {
	object := func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		return m
	}
	taints := node.request.Taints
	if taints == nil {
		taints = []Taint{}
	}
	home := l.node(node.request.Name)
	config := object(
		"apiVersion", "kubelet.config.k8s.io/v1beta1",
		"kind", "KubeletConfiguration",
		"address", node.address(),
		"healthzPort", 0,
		"authentication", object("anonymous", object("enabled", false), "webhook", object("enabled", true),
			"x509", object("clientCAFile", l.pki("ca.crt"))),
		"authorization", object("mode", "Webhook"),
		"failCgroupV1", false,
		"cgroupDriver", "cgroupfs",
		"cgroupRoot", "/"+node.cgroup(),
		"enforceNodeAllocatable", []string{},
		"failSwapOn", false,
		"containerRuntimeEndpoint", "unix://"+node.socket(),
		"providerID", node.request.ProviderID,
		"registerWithTaints", taints,
		// Kill tests would wait for minutes otherwise.
		"crashLoopBackOff", object("maxContainerRestartPeriod", "1s"),
		"resolvConf", l.conf("resolv.conf"),
		"podLogsDir", filepath.Join(home, "pod-logs"),
		"volumePluginDir", filepath.Join(home, "plugins"),
		// A nearly full disk of the machine is not this cluster's business.
		"evictionHard", object("memory.available", "50Mi", "nodefs.available", "0%", "imagefs.available", "0%", "nodefs.inodesFree", "0%", "imagefs.inodesFree", "0%"),
		"imageGCHighThresholdPercent", 100,
		"maxPods", 60,
	)
	return json.Marshal(config)
}

func (s *supervisor) kubeletArgs(node *realNode) []string {
	home := s.layout.node(node.request.Name)
	labels := make([]string, 0, len(node.request.Labels))
	for key, value := range node.request.Labels {
		labels = append(labels, key+"="+value)
	}
	sort.Strings(labels)
	return []string{
		"--config=" + filepath.Join(home, "kubelet.json"),
		"--kubeconfig=" + filepath.Join(home, "kubeconfig"),
		"--hostname-override=" + node.request.Name,
		"--node-ip=" + node.address(),
		"--root-dir=" + filepath.Join(home, "kubelet"),
		"--cert-dir=" + filepath.Join(home, "certs"),
		"--node-labels=" + strings.Join(labels, ","),
	}
}

func (s *supervisor) writeNodeFiles(node *realNode) error {
	home := s.layout.node(node.request.Name)
	cni := filepath.Join(home, "cni")
	for _, directory := range []string{cni, filepath.Join(home, "kubelet"), filepath.Join(home, "plugins"), fmt.Sprintf("/run/node%d", node.number)} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return err
		}
	}
	kubelet, err := kubeletConfig(s.layout, node)
	if err != nil {
		return err
	}
	user := subject{name: "system:node:" + node.request.Name, groups: []string{"system:nodes"}}
	if err := writeKubeconfig(s.ca, filepath.Join(home, "kubeconfig"), user); err != nil {
		return err
	}
	return writeAll(map[string][]byte{
		filepath.Join(home, "containerd.toml"): []byte(containerdConfig(home, cni, node)),
		filepath.Join(cni, "10-node.conflist"): []byte(cniConfig(home, node)),
		filepath.Join(home, "kubelet.json"):    kubelet,
	})
}
