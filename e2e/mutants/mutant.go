package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// folder holds the patches, below the module's root.
const folder = "e2e/mutants"

// mutant is one defence switched off.
type mutant struct {
	name    string // of the file, without .patch
	defence string
	pkg     string // of the test: ./e2e/attacks
	test    string // the test's -run pattern
	patch   []byte
}

var header = regexp.MustCompile(`\A# defence: (.+)\n# test: (\./[a-z0-9/]+) -run '(\^Test\w+\$)'\n`)

// parseMutant reads a patch with its header.
func parseMutant(name string, data []byte) (mutant, error) {
	h := header.FindSubmatch(data)
	if h == nil {
		return mutant{}, fmt.Errorf("%s: it must begin with \"# defence: sentence\" and \"# test: ./package -run '^TestName$'\"", name)
	}
	return mutant{name: strings.TrimSuffix(name, ".patch"), defence: string(h[1]), pkg: string(h[2]), test: string(h[3]), patch: data[len(h[0]):]}, nil
}

// readMutants reads every patch, in the order of names.
func readMutants(root string) (all []mutant, err error) {
	files, err := filepath.Glob(filepath.Join(root, folder, "*.patch"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		m, err := parseMutant(filepath.Base(f), data)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, errors.New("there are no patches in " + folder)
	}
	return all, nil
}

// findRoot walks up to the module's root.
func findRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is not inside the module")
		}
		dir = filepath.Dir(dir)
	}
}
