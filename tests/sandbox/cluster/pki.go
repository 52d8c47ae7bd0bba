package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// authority signs the certificates of one cluster. They last as long as a test cluster does.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

type subject struct {
	name   string
	groups []string
	// addresses and names of a server; none for a client
	ips   []string
	names []string
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate(subject{name: "pinnace-sandbox"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key, encode("CERTIFICATE", der)}, err
}

// issue returns a certificate and its key, both PEM.
func (a *authority) issue(s subject) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate(s), a.cert, &private.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	return encode("CERTIFICATE", der), encode("EC PRIVATE KEY", keyDER), err
}

func certificate(s subject) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.name, Organization: s.groups},
		DNSNames:     s.names,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, ip := range s.ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	return template
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeKeys makes everything that the control plane needs to trust itself.
func writeKeys(l Layout) (*authority, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	server := subject{
		name:  "kube-apiserver",
		ips:   []string{"127.0.0.1", KubernetesIP, InsideAddress},
		names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
	}
	kubeletClient := subject{name: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}}
	for file, s := range map[string]subject{"apiserver": server, "kubelet-client": kubeletClient} {
		cert, key, err := ca.issue(s)
		if err != nil {
			return nil, err
		}
		if err := writeAll(map[string][]byte{l.pki(file + ".crt"): cert, l.pki(file + ".key"): key}); err != nil {
			return nil, err
		}
	}
	accounts, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&accounts.PublicKey)
	if err != nil {
		return nil, err
	}
	return ca, writeAll(map[string][]byte{
		l.pki("ca.crt"):              ca.pem,
		l.pki("service-account.key"): encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(accounts)),
		l.pki("service-account.pub"): encode("PUBLIC KEY", public),
	})
}

// writeKubeconfig for one user; the address is good inside and outside of the sandbox.
func writeKubeconfig(ca *authority, path string, s subject) error {
	cert, key, err := ca.issue(s)
	if err != nil {
		return err
	}
	b64 := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: sandbox
clusters:
- name: sandbox
  cluster: {server: "https://%s:6443", certificate-authority-data: %s}
users:
- name: %s
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: sandbox
  context: {cluster: sandbox, user: %q}
`, InsideAddress, b64(ca.pem), s.name, b64(cert), b64(key), s.name)
	return os.WriteFile(path, []byte(text), 0o600)
}

func writeAll(files map[string][]byte) error {
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
