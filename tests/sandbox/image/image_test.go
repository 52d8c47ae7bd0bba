package image

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, spec Spec) []byte {
	t.Helper()
	output := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(spec, output); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func example(t *testing.T) Spec {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("#!/bin/true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Spec{Tag: "localhost/x:dev", Entrypoint: "/bin/program", User: "65532", Files: []File{{source, "/bin/program", 0o755}}}
}

func TestEqualFilesGiveEqualImages(t *testing.T) {
	spec := example(t)
	if string(write(t, spec)) != string(write(t, spec)) {
		t.Fatal("two builds differ")
	}
}

func TestTheArchiveNamesItsImage(t *testing.T) {
	reader := tar.NewReader(strings.NewReader(string(write(t, example(t)))))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			t.Fatal("no index.json")
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Name != "index.json" {
			continue
		}
		var index struct {
			Manifests []struct{ Annotations map[string]string }
		}
		if err := json.NewDecoder(reader).Decode(&index); err != nil {
			t.Fatal(err)
		}
		if name := index.Manifests[0].Annotations["io.containerd.image.name"]; name != "localhost/x:dev" {
			t.Fatalf("name %q", name)
		}
		return
	}
}

func TestFilesAreReadFromFlags(t *testing.T) {
	file, err := ParseFile("a/b:/c/d:0644")
	if err != nil || file != (File{"a/b", "/c/d", 0o644}) {
		t.Fatal(file, err)
	}
	for _, bad := range []string{"a", "a:b", ":/c", "a:/b:9", "a:/b:1:2"} {
		if _, err := ParseFile(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestTwoFilesInOnePlaceAreRefused(t *testing.T) {
	spec := example(t)
	spec.Files = append(spec.Files, spec.Files[0])
	if err := Write(spec, filepath.Join(t.TempDir(), "x")); err == nil {
		t.Fatal("taken")
	}
}
