package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// How long the cluster may take to answer. It takes 3 s on an idle machine, and these machines are seldom idle.
const startTimeout = 3 * time.Minute

// initProcess identifies process 1 of the namespaces as the host sees it; the start time tells it from a later process
// of the same number.
type initProcess struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`
}

// Up starts a sandbox and returns when its API server answers and its system node is Ready. prepare runs when the data
// directory is there and nothing is started yet.
func Up(l Layout, prepare func() error) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the sandbox makes namespaces and containers: run it as root, or set KUBECONFIG to a cluster of yours")
	}
	if other, taken := otherOwner(l); taken {
		return fmt.Errorf("a sandbox runs already, with its data in %s, and a machine has room for one: end it with --data %s down", other.Root, other.Root)
	}
	if err := takeTurn(l); err != nil {
		return err
	}
	if err := clean(l); err != nil {
		return err
	}
	if err := claim(l); err != nil {
		return err
	}
	if err := l.makeDirectories(); err != nil {
		return err
	}
	if err := prepare(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(l.Log("sandbox"))
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(self, "init", "--data", l.Root)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Setsid:     true,
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	pid := command.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	record, _ := json.Marshal(initProcess{pid, startTime(pid)})
	if err := os.WriteFile(l.initFile(), record, 0o644); err != nil {
		return err
	}
	if err := connect(pid); err != nil {
		return err
	}
	return waitFor(l, ended)
}

// connect lays the one link between host and sandbox. It goes with the network namespace.
func connect(pid int) error {
	return run([][]string{
		{"ip", "link", "add", HostLink, "type", "veth", "peer", "name", InsideLink, "netns", fmt.Sprint(pid)},
		{"ip", "address", "add", HostAddress + LinkBits, "dev", HostLink},
		{"ip", "link", "set", HostLink, "up"},
		{"ip", "route", "add", NodeRange, "via", InsideAddress},
		{"ip", "route", "add", ServiceRange, "via", InsideAddress},
	})
}

func waitFor(l Layout, ended <-chan error) error {
	client := ControlClient(l)
	deadline := time.After(startTimeout)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("the sandbox ended while starting (%v); see %s", err, filepath.Dir(l.Log("x")))
		case <-deadline:
			return fmt.Errorf("the sandbox is not ready after %s; see %s", startTimeout, filepath.Dir(l.Log("x")))
		case <-tick.C:
			response, err := client.Get("http://sandbox/ready")
			if err != nil {
				continue
			}
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
}

// Running returns the host's process id of the sandbox's process 1.
func Running(l Layout) (int, bool) {
	text, err := os.ReadFile(l.initFile())
	if err != nil {
		return 0, false
	}
	var record initProcess
	if json.Unmarshal(text, &record) != nil || record.PID == 0 {
		return 0, false
	}
	return record.PID, record.Start != "" && startTime(record.PID) == record.Start
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot; empty for a process that is not there.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in brackets, may hold spaces.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// Exec replaces this process by a command inside the sandbox.
func Exec(l Layout, command []string) error {
	pid, running := Running(l)
	if !running {
		return fmt.Errorf("no sandbox is up; start it with: make sandbox-up")
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	args := append([]string{"nsenter", "-t", fmt.Sprint(pid), "-n", "-m", "-p", "--"}, command...)
	return syscall.Exec(nsenter, args, os.Environ())
}

func run(commands [][]string) error {
	for _, command := range commands {
		output, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(output)))
		}
	}
	return nil
}
