// Sandbox is a Kubernetes cluster on one machine: its own supervisor, and every upstream program of the cluster.
package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"pinnace.dev/sandbox/cluster"
	"pinnace.dev/sandbox/component"
	"pinnace.dev/sandbox/image"
	"pinnace.dev/sandbox/responder"
)

func main() {
	// containerd and its shim lie beside this binary.
	if self, err := os.Executable(); err == nil {
		_ = os.Setenv("PATH", filepath.Dir(self)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	}
	// Through a link of its name the binary is that program, as in a folder of KUBEBUILDER_ASSETS.
	if name := filepath.Base(os.Args[0]); slices.Contains(component.Names, name) {
		os.Exit(component.Run(name, os.Args[1:]))
	}
	if len(os.Args) > 1 && slices.Contains(component.Names, os.Args[1]) {
		name, args := os.Args[1], os.Args[2:]
		if name == "kubectl" {
			// Never the cluster that the shell happens to point at.
			_ = os.Setenv("KUBECONFIG", cluster.DefaultLayout().Kubeconfig())
		}
		os.Exit(component.Run(name, args))
	}
	if err := commands().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

func commands() *cobra.Command {
	root := &cobra.Command{
		Use:           "sandbox",
		Short:         "A real Kubernetes cluster on one machine, without Docker and without a network",
		Long:          "Besides the commands below: sandbox kubectl ... speaks to the cluster.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	layout := cluster.DefaultLayout()
	root.PersistentFlags().StringVar(&layout.Root, "data", layout.Root, "data directory (PINNACE_SANDBOX)")
	simple := func(use, short string, hidden bool, run func() error) {
		root.AddCommand(&cobra.Command{Use: use, Short: short, Hidden: hidden, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return run() }})
	}
	start := &cobra.Command{Use: "up", Short: "Start the cluster; what an earlier one left is removed first", Args: cobra.NoArgs}
	parent := start.Flags().Int("parent", 0, "process id of who starts this: when that process ends, this one does")
	start.RunE = func(*cobra.Command, []string) error { return up(layout, *parent) }
	root.AddCommand(start)
	simple("down", "End the cluster and remove everything of it", false, func() error { return cluster.Down(layout) })
	simple("status", "Say whether it runs, and with which nodes", false, func() error { return status(layout) })
	simple("init", "", true, func() error { return cluster.Init(layout) })
	simple("supervise", "", true, func() error { return cluster.Supervise(layout) })
	simple("responder", "", true, func() error { return respond(layout) })
	root.AddCommand(&cobra.Command{
		Use: "exec -- COMMAND...", Short: "Run a command inside the cluster's namespaces", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return cluster.Exec(layout, args) },
	})
	for _, verb := range [][2]string{{"kill", "SIGKILL a component; it is started again"}, {"stop", "SIGSTOP a component"}, {"cont", "SIGCONT a component"}} {
		root.AddCommand(&cobra.Command{
			Use: verb[0] + " COMPONENT", Short: verb[1], Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return cluster.Post(layout, "/"+verb[0]+"/"+args[0]) },
		})
	}
	root.AddCommand(imageCommands(&layout))
	return root
}

// up builds the pause image, which every pod needs, before the first node starts.
func up(layout cluster.Layout, parent int) error {
	if parent != 0 {
		if err := cluster.EndWith(parent); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pause := image.Spec{
		Tag: cluster.PauseImage, Entrypoint: "/pause", User: "65535",
		Files: []image.File{{Source: filepath.Join(filepath.Dir(self), "pause"), Target: "/pause", Mode: 0o755}},
	}
	return cluster.Up(layout, func() error {
		return image.Write(pause, filepath.Join(layout.Images(), image.FileName(pause.Tag)))
	})
}

// respond is the component that answers for all pods on KWOK nodes.
func respond(layout cluster.Layout) error {
	return responder.Run(responder.Config{
		Kubeconfig: layout.Kubeconfig(),
		Range:      netip.MustParsePrefix(cluster.KwokRange),
		Socket:     layout.Responder(),
		Script:     layout.LoadScript(),
	})
}

func status(layout cluster.Layout) error {
	pid, running := cluster.Running(layout)
	if !running {
		return fmt.Errorf("no sandbox is up")
	}
	fmt.Printf("up, process %d, KUBECONFIG=%s\n", pid, layout.Kubeconfig())
	response, err := cluster.ControlClient(layout).Get("http://sandbox/nodes")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func imageCommands(layout *cluster.Layout) *cobra.Command {
	root := &cobra.Command{Use: "image", Short: "Make images from files, and load them"}
	spec, output, files := image.Spec{Libraries: true}, "", []string{}
	build := &cobra.Command{
		Use: "build", Short: "Write an OCI archive; shared libraries and CA certificates are added", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, text := range files {
				file, err := image.ParseFile(text)
				if err != nil {
					return err
				}
				spec.Files = append(spec.Files, file)
			}
			return image.Write(spec, output)
		},
	}
	flags := build.Flags()
	flags.StringVar(&spec.Tag, "tag", "", "name with a host part: localhost/name:dev")
	flags.StringVar(&spec.Entrypoint, "entrypoint", "", "program that runs")
	flags.StringVar(&spec.User, "user", "65532", "user id that it runs as")
	flags.StringArrayVar(&spec.Env, "env", nil, "KEY=VALUE, repeatable")
	flags.StringArrayVar(&files, "add", nil, "SOURCE:/TARGET[:MODE], repeatable")
	flags.StringVarP(&output, "output", "o", "", "archive to write")
	for _, name := range []string{"tag", "entrypoint", "output"} {
		_ = build.MarkFlagRequired(name)
	}
	load := &cobra.Command{
		Use: "load ARCHIVE", Short: "Import an archive into every node, those that start later included", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := filepath.Base(args[0])
			content, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if filepath.Ext(name) != ".tar" {
				return fmt.Errorf("%s: the archive's name ends in .tar", args[0])
			}
			// A node that starts at this moment must not import half a file.
			target := filepath.Join(layout.Images(), name)
			if err := os.WriteFile(target+".part", content, 0o644); err != nil {
				return err
			}
			if err := os.Rename(target+".part", target); err != nil {
				return err
			}
			return cluster.Post(*layout, "/images/"+name)
		},
	}
	root.AddCommand(build, load)
	return root
}
