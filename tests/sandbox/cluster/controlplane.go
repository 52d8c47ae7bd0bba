package cluster

import (
	"os"

	nodestages "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	podstages "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
)

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: Metadata}
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: 0.0.0.0
healthzBindAddress: ""
metricsBindAddress: ""
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {masqueradeAll: true}
`

// A program of the control plane and its arguments.
type program struct {
	name string
	args []string
}

// controlPlane in the order of starting.
func controlPlane(l Layout) []program {
	kubeconfig := func(name string) []string {
		file := "--kubeconfig=" + l.kube(name)
		return []string{file, "--authentication-" + file[2:], "--authorization-" + file[2:], "--leader-elect=false", "--bind-address=127.0.0.1"}
	}
	return []program{
		{"etcd", []string{"--data-dir=" + l.path("etcd")}},
		{"kube-apiserver", []string{
			"--etcd-servers=http://127.0.0.1:2379",
			"--bind-address=0.0.0.0",
			"--advertise-address=" + InsideAddress,
			"--secure-port=6443",
			"--tls-cert-file=" + l.pki("apiserver.crt"),
			"--tls-private-key-file=" + l.pki("apiserver.key"),
			"--client-ca-file=" + l.pki("ca.crt"),
			"--kubelet-client-certificate=" + l.pki("kubelet-client.crt"),
			"--kubelet-client-key=" + l.pki("kubelet-client.key"),
			// Without it logs and exec look a node's name up in a DNS that is not there.
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-key-file=" + l.pki("service-account.pub"),
			"--service-account-signing-key-file=" + l.pki("service-account.key"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-cluster-ip-range=" + ServiceRange,
			"--authorization-mode=Node,RBAC",
			"--allow-privileged=true",
			"--audit-policy-file=" + l.conf("audit-policy.yaml"),
			"--audit-log-path=" + l.AuditLog(),
			"--audit-log-maxsize=1000",
		}},
		{"kube-controller-manager", append(kubeconfig("kube-controller-manager"),
			// Most controllers are forbidden to act without accounts of their own.
			"--use-service-account-credentials=true",
			"--service-account-private-key-file="+l.pki("service-account.key"),
			"--root-ca-file="+l.pki("ca.crt"),
			// A quarter of the CPU that 10,000 joining nodes cost.
			"--controllers=*,-ttl-controller",
			"--node-monitor-grace-period=40s",
			// Its 20 calls a second would be 15 s of waiting for 300 pods.
			"--kube-api-qps=500",
			"--kube-api-burst=1000",
		)},
		{"kube-scheduler", append(kubeconfig("kube-scheduler"), "--kube-api-qps=500", "--kube-api-burst=1000")},
		{"kube-proxy", []string{"--config=" + l.conf("kube-proxy.yaml"), "--hostname-override=" + SystemNode}},
		{"kwok", []string{
			"--kubeconfig=" + l.Kubeconfig(),
			"--config=" + l.conf("kwok.yaml"),
			// All nodes would be a fight with the kubelets of the real ones.
			"--manage-all-nodes=false",
			// Not by annotation: kwok looks at those only when a node is new, and aws-sim's are taken over later.
			"--manage-nodes-with-label-selector=kwok.x-k8s.io/node=fake",
			"--node-lease-duration-seconds=40",
			"--cidr=" + KwokRange,
			"--node-ip=" + InsideAddress,
			"--server-address=127.0.0.1:10247",
		}},
		{"responder", []string{"--data=" + l.Root}},
	}
}

// writeConfiguration of the control plane: keys, kubeconfigs, files.
func writeConfiguration(l Layout) (*authority, error) {
	ca, err := writeKeys(l)
	if err != nil {
		return nil, err
	}
	users := map[string]subject{
		l.Kubeconfig():                    {name: "sandbox-admin", groups: []string{"system:masters"}},
		l.kube("kube-controller-manager"): {name: "system:kube-controller-manager"},
		l.kube("kube-scheduler"):          {name: "system:kube-scheduler"},
		l.kube("kube-proxy"):              {name: "system:kube-proxy"},
	}
	for path, user := range users {
		if err := writeKubeconfig(ca, path, user); err != nil {
			return nil, err
		}
	}
	stages := nodestages.DefaultNodeInit + "\n---\n" + podstages.DefaultPodReady + "\n---\n" +
		podstages.DefaultPodComplete + "\n---\n" + podstages.DefaultPodDelete
	files := map[string]string{
		"audit-policy.yaml": auditPolicy,
		"kube-proxy.yaml":   proxyConfig + "clientConnection: {kubeconfig: " + l.kube("kube-proxy") + "}\n",
		"kwok.yaml":         stages,
		"resolv.conf":       "",
	}
	for name, content := range files {
		if err := os.WriteFile(l.conf(name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return ca, nil
}
