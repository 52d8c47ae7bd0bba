// Package component holds the upstream programs that the sandbox's binary can be.
package component

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Names are the programs in the order in which `sandbox up` starts those of the control plane.
var Names = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kwok", "kubectl"}

// Run becomes the named program, with args as its command line, and returns its exit code.
func Run(name string, args []string) int {
	os.Args = append([]string{name}, args...)
	var command *cobra.Command
	switch name {
	case "etcd":
		return etcd(args)
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllermanager.NewControllerManagerCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kube-proxy":
		command = proxy.NewProxyCommand()
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	case "kwok":
		return kwok(args)
	case "kubectl":
		resetFlags()
		command = cmd.NewDefaultKubectlCommand()
	default:
		return 2
	}
	return cli.Run(command)
}

// component-base registers a `version` flag that is no bool, on which kwok's and kubectl's own would panic.
func resetFlags() {
	pflag.CommandLine = pflag.NewFlagSet(os.Args[0], pflag.ContinueOnError)
}
