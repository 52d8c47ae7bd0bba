package cluster

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// The lock of an `up` that is under way. It lies beside the data directory, which comes and goes, and stays. The kernel
// says who holds a lock of fcntl, and gives it back when that process ends or closes the file, so this one stays open.
var turn *os.File

func (l Layout) turnFile() string { return filepath.Clean(l.Root) + ".up" }

// takeTurn makes this process the one `up` of its data directory until it ends.
func takeTurn(l Layout) error {
	if err := os.MkdirAll(filepath.Dir(l.turnFile()), 0o755); err != nil {
		return err
	}
	var err error
	if turn, err = os.OpenFile(l.turnFile(), os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return err
	}
	return eventually(func() bool {
		killStarter(turn)
		lock := wholeFile()
		return syscall.FcntlFlock(turn.Fd(), syscall.F_SETLK, &lock) == nil
	})
}

// endTurn ends an `up` that is under way: whoever left it does not wait for it, and nobody would end what it starts.
func endTurn(l Layout) error {
	file, err := os.Open(l.turnFile())
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return eventually(func() bool { return !killStarter(file) })
}

// EndWith makes this process end when its parent does.
func EndWith(parent int) error {
	// The kernel keeps it with the thread, and Go ends a thread that is not needed.
	runtime.LockOSThread()
	if _, _, err := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0); err != 0 {
		return fmt.Errorf("prctl: %w", err)
	}
	if os.Getppid() != parent {
		return fmt.Errorf("process %d is not this one's parent: it has ended", parent)
	}
	return nil
}

func eventually(done func() bool) error {
	if until(10*time.Second, done) != nil {
		return fmt.Errorf("another `sandbox up` is under way and does not end")
	}
	return nil
}

// killStarter kills the other process that has the lock, and says whether there was one.
func killStarter(file *os.File) bool {
	lock := wholeFile()
	err := syscall.FcntlFlock(file.Fd(), syscall.F_GETLK, &lock)
	if err != nil || lock.Type == syscall.F_UNLCK {
		return false
	}
	_ = syscall.Kill(int(lock.Pid), syscall.SIGKILL)
	return true
}

func wholeFile() syscall.Flock_t {
	return syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
}
