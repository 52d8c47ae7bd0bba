package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

type mount struct {
	source, target, kind string
	flags                uintptr
}

// Init is process 1 of the namespaces. It makes mounts and addresses, starts the supervisor and reaps what is left to
// it (containerd's shims leave their children to process 1). When it ends, everything ends.
func Init(l Layout) error {
	mounts := []mount{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
	}
	// The kubelet and containerd write below these, whatever they are told; nothing of it may reach the machine.
	for _, scratch := range []string{"/var/lib", "/var/log", "/opt"} {
		if !strings.HasPrefix(l.Root, scratch+"/") {
			mounts = append(mounts, mount{"tmpfs", scratch, "tmpfs", 0})
		}
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := run([][]string{{"ip", "link", "set", "lo", "up"}}); err != nil {
		return err
	}
	linked := func() bool { _, err := os.Stat("/proc/sys/net/ipv4/conf/" + InsideLink); return err == nil }
	if err := until(10*time.Second, linked); err != nil {
		return fmt.Errorf("the link to the host: %w", err)
	}
	if err := run([][]string{
		{"ip", "address", "add", InsideAddress + LinkBits, "dev", InsideLink},
		{"ip", "link", "set", InsideLink, "up"},
		// There is no default route; kube-proxy turns these addresses into pods' before a packet leaves.
		{"ip", "route", "add", ServiceRange, "dev", InsideLink},
		// No interface has these addresses, and the responder listens on them all the same.
		{"ip", "route", "add", "local", KwokRange, "dev", "lo"},
	}); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	supervisor := exec.Command(self, "supervise", "--data", l.Root)
	supervisor.Stdout, supervisor.Stderr = os.Stdout, os.Stderr
	if err := supervisor.Start(); err != nil {
		return err
	}
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		if pid == supervisor.Process.Pid {
			return fmt.Errorf("the supervisor ended")
		}
		if err != nil && err != syscall.EINTR {
			return err
		}
	}
}
