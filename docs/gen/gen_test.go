package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFresh(t *testing.T) {
	root := "../.."
	for name, page := range pages {
		want, err := page(root)
		if err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Error(err)
		} else if string(have) != mark+want {
			t.Errorf("docs/%s is not what the code says: run make generate (or only: go run ./docs/gen)", name)
		}
	}
}
