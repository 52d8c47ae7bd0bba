package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Down ends a sandbox, whatever state it is in, and removes what it leaves.
func Down(l Layout) error {
	if err := endTurn(l); err != nil {
		return err
	}
	return clean(l)
}

// clean ends process 1, with which the kernel ends every other and takes mounts, links and namespaces; cgroups and the
// data directory are left to remove.
func clean(l Layout) error {
	if pid, running := Running(l); running {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		if err := until(30*time.Second, func() bool { _, running := Running(l); return !running }); err != nil {
			return fmt.Errorf("process %d does not end", pid)
		}
	}
	if _, taken := otherOwner(l); taken {
		return l.remove()
	}
	// The namespace takes its end of the link along, but only a moment after its last process.
	if linkExists() {
		_ = exec.Command("ip", "link", "delete", HostLink).Run()
	}
	if err := until(30*time.Second, func() bool { return removeCgroups() == nil }); err != nil {
		return fmt.Errorf("cgroups stay: %w", removeCgroups())
	}
	_ = os.Remove(ownerFile)
	return l.remove()
}

func linkExists() bool {
	_, err := os.Stat("/sys/class/net/" + HostLink)
	return err == nil
}

func cgroupDirectories() []string {
	found, _ := filepath.Glob("/sys/fs/cgroup/*/" + CgroupPrefix + "*")
	unified, _ := filepath.Glob("/sys/fs/cgroup/" + CgroupPrefix + "*")
	return append(found, unified...)
}

func removeCgroups() error {
	var last error
	for _, top := range cgroupDirectories() {
		if err := removeTree(top); err != nil {
			last = err
		}
	}
	return last
}

// removeTree depth first: a cgroup goes when its last process and its last child are gone.
func removeTree(top string) error {
	var all []string
	_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	sort.Slice(all, func(i, j int) bool { return strings.Count(all[i], "/") > strings.Count(all[j], "/") })
	var last error
	for _, directory := range all {
		if err := syscall.Rmdir(directory); err != nil && err != syscall.ENOENT {
			last = fmt.Errorf("%s: %w", directory, err)
		}
	}
	return last
}

// until asks every 50 ms.
func until(limit time.Duration, done func() bool) error {
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			return fmt.Errorf("not done after %s", limit)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}
