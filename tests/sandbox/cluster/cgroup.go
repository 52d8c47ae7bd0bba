package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// controllers of cgroup v1, or the one hierarchy of v2.
func controllers() []string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{"/sys/fs/cgroup"}
	}
	found, _ := filepath.Glob("/sys/fs/cgroup/*")
	var directories []string
	for _, path := range found {
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			directories = append(directories, path)
		}
	}
	return directories
}

// makeCgroups makes the root of a node's cgroups; the kubelet wants it to exist.
func makeCgroups(name string) error {
	for _, controller := range controllers() {
		path := filepath.Join(controller, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		// A new cpuset of v1 is empty, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(controller, file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(path, file), value, 0o644); err != nil {
				return fmt.Errorf("cgroup: %w", err)
			}
		}
	}
	return nil
}

// killCgroup kills every process below the node's cgroups.
func killCgroup(name string) {
	for _, controller := range controllers() {
		_ = filepath.WalkDir(filepath.Join(controller, name), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil
			}
			text, _ := os.ReadFile(path)
			for _, field := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			return nil
		})
	}
}

func removeCgroupsOf(name string) error {
	var last error
	for _, controller := range controllers() {
		if err := removeTree(filepath.Join(controller, name)); err != nil {
			last = err
		}
	}
	return last
}
