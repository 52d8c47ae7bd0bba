package cluster

import (
	"os"
	"path/filepath"
	"strings"
)

// ownerFile names the data directory of the sandbox that has the machine's link, addresses and cgroups. They have fixed
// names, so there is one sandbox a machine, wherever its data is.
var ownerFile = "/run/pinnace-sandbox"

func claim(l Layout) error {
	root, err := filepath.Abs(l.Root)
	if err != nil {
		return err
	}
	return os.WriteFile(ownerFile, []byte(root), 0o644)
}

// otherOwner returns the sandbox with another data directory that runs on this machine, if there is one.
func otherOwner(l Layout) (Layout, bool) {
	text, err := os.ReadFile(ownerFile)
	if err != nil {
		return Layout{}, false
	}
	owner := Layout{strings.TrimSpace(string(text))}
	if root, err := filepath.Abs(l.Root); err == nil && owner.Root == root {
		return Layout{}, false
	}
	_, running := Running(owner)
	return owner, running
}
