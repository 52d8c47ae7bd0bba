// Package image writes OCI image archives from files of this machine: no Dockerfile, no engine, the same bytes for the
// same files.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Spec of one image.
type Spec struct {
	// Tag with a host part, such as localhost/pinnace-runtime:dev.
	Tag        string
	Entrypoint string
	User       string
	Env        []string
	Files      []File
	// Libraries adds the shared libraries of every ELF file, and CA certificates.
	Libraries bool
}

// File of this machine, and where it goes.
type File struct {
	Source, Target string
	Mode           int64
}

// epoch of every file, so that equal files give equal images.
var epoch = time.Unix(0, 0)

const caCertificates = "/etc/ssl/certs/ca-certificates.crt"

// ParseFile reads SRC:DST or SRC:DST:MODE (octal).
func ParseFile(text string) (File, error) {
	parts := strings.Split(text, ":")
	file := File{Mode: 0o755}
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || !strings.HasPrefix(parts[1], "/") {
		return file, fmt.Errorf("--add %q: write SOURCE:/TARGET or SOURCE:/TARGET:MODE", text)
	}
	file.Source, file.Target = parts[0], path.Clean(parts[1])
	if len(parts) == 3 {
		mode, err := strconv.ParseInt(parts[2], 8, 32)
		if err != nil {
			return file, fmt.Errorf("--add %q: the mode is octal, like 0755", text)
		}
		file.Mode = mode
	}
	return file, nil
}

// Write the image to an archive that `ctr images import` takes.
func Write(spec Spec, output string) error {
	files, err := complete(spec)
	if err != nil {
		return err
	}
	layer, plain, err := layer(files)
	if err != nil {
		return err
	}
	config, _ := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": []string{spec.Entrypoint}, "User": spec.User, "Env": append([]string{"PATH=/usr/local/bin:/usr/bin:/bin"}, spec.Env...),
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(plain)}},
	})
	descriptor := func(kind string, content []byte) map[string]any {
		return map[string]any{"mediaType": "application/vnd.oci.image." + kind, "digest": digest(content), "size": len(content)}
	}
	manifest, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("config.v1+json", config),
		"layers": []any{descriptor("layer.v1.tar+gzip", layer)},
	})
	entry := descriptor("manifest.v1+json", manifest)
	entry["annotations"] = map[string]string{"io.containerd.image.name": spec.Tag, "org.opencontainers.image.ref.name": spec.Tag}
	entry["platform"] = map[string]string{"architecture": runtime.GOARCH, "os": "linux"}
	index, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{entry}})
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	blobs := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index}
	for _, blob := range [][]byte{layer, config, manifest} {
		blobs["blobs/sha256/"+strings.TrimPrefix(digest(blob), "sha256:")] = blob
	}
	for _, name := range sorted(blobs) {
		if err := add(w, name, 0o644, blobs[name]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	temporary := output + ".partial"
	if err := os.WriteFile(temporary, archive.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, output)
}

// complete adds libraries and certificates, and refuses two files in one place.
func complete(spec Spec) (map[string]File, error) {
	files := map[string]File{}
	for _, file := range spec.Files {
		if _, taken := files[file.Target]; taken {
			return nil, fmt.Errorf("--add: two files for %s", file.Target)
		}
		files[file.Target] = file
	}
	if !spec.Libraries {
		return files, nil
	}
	for _, file := range spec.Files {
		needed, err := libraries(file.Source)
		if err != nil {
			return nil, err
		}
		for _, library := range needed {
			if _, taken := files[library]; !taken {
				files[library] = File{Source: library, Target: library, Mode: 0o755}
			}
		}
	}
	if _, err := os.Stat(caCertificates); err == nil {
		files[caCertificates] = File{Source: caCertificates, Target: caCertificates, Mode: 0o644}
	}
	return files, nil
}

var lddPath = regexp.MustCompile(`(/[^ ]+) \(0x`)

// libraries that the dynamic loader would load; none for a static file or one that is no program.
func libraries(program string) ([]string, error) {
	output, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, nil
	}
	if strings.Contains(string(output), "not found") {
		return nil, fmt.Errorf("%s needs libraries that are not on this machine:\n%s", program, output)
	}
	var list []string
	for _, match := range lddPath.FindAllStringSubmatch(string(output), -1) {
		list = append(list, match[1])
	}
	return list, nil
}

// layer returns the files as a compressed and as a plain tar.
func layer(files map[string]File) (compressed, plain []byte, err error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	directories := map[string]bool{"/": true}
	passwd := []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")
	if err := directory(w, directories, "/etc", 0o755); err != nil {
		return nil, nil, err
	}
	if err := add(w, "etc/passwd", 0o644, passwd); err != nil {
		return nil, nil, err
	}
	if err := directory(w, directories, "/tmp", 0o1777); err != nil {
		return nil, nil, err
	}
	for _, target := range sorted(files) {
		if err := directory(w, directories, path.Dir(target), 0o755); err != nil {
			return nil, nil, err
		}
		content, err := os.ReadFile(files[target].Source)
		if err != nil {
			return nil, nil, err
		}
		if err := add(w, target[1:], files[target].Mode, content); err != nil {
			return nil, nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, nil, err
	}
	var packed bytes.Buffer
	zip, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if _, err := zip.Write(buffer.Bytes()); err != nil {
		return nil, nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, nil, err
	}
	return packed.Bytes(), buffer.Bytes(), nil
}

func directory(w *tar.Writer, known map[string]bool, name string, mode int64) error {
	if known[name] {
		return nil
	}
	if err := directory(w, known, path.Dir(name), 0o755); err != nil {
		return err
	}
	known[name] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name[1:] + "/", Mode: mode, ModTime: epoch})
}

func add(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: epoch}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(w, bytes.NewReader(content))
	return err
}

func digest(content []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(content))
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// FileName for a tag: what is not a letter, digit, dot or dash becomes a dash.
func FileName(tag string) string {
	return regexp.MustCompile(`[^A-Za-z0-9.-]+`).ReplaceAllString(filepath.Base(tag), "-") + ".tar"
}
