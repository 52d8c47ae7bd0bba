package cluster

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The lock is one of processes, so the other `up` is this test binary again, with the data directory in this variable.
const starterOf = "PINNACE_TEST_STARTER"

func TestMain(m *testing.M) {
	if root := os.Getenv(starterOf); root != "" {
		if err := takeTurn(Layout{root}); err != nil {
			panic(err)
		}
		fmt.Println("under way")
		select {}
	}
	os.Exit(m.Run())
}

func starter(t *testing.T, l Layout) *exec.Cmd {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), starterOf+"="+l.Root)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || !strings.Contains(line, "under way") {
		t.Fatalf("%q %v", line, err)
	}
	return command
}

func killed(t *testing.T, command *exec.Cmd) {
	t.Helper()
	_ = command.Wait()
	if status := command.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Fatalf("it ended otherwise: %v", command.ProcessState)
	}
}

func TestAnUpThatIsUnderWayEndsWithDownAndWithTheNextUp(t *testing.T) {
	layout := Layout{filepath.Join(t.TempDir(), "missing", "data") + "/"}
	if err := endTurn(layout); err != nil {
		t.Fatal("nothing is under way:", err)
	}
	first := starter(t, layout)
	second := starter(t, layout)
	killed(t, first)
	if err := endTurn(Layout{layout.Root + "2"}); err != nil || startTime(second.Process.Pid) == "" {
		t.Fatal("the one of another directory has ended", err)
	}
	if err := endTurn(layout); err != nil {
		t.Fatal(err)
	}
	killed(t, second)
	if err := endTurn(layout); err != nil {
		t.Fatal("nothing is under way any more:", err)
	}
}
