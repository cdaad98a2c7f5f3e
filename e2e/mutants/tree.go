package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// buildFlags build what the tests need. Without paths in the binaries, all copies share the build cache; without symbols they link sooner.
var buildFlags = []string{"-trimpath", "-vet=off", "-ldflags=-s -w"}

// testTime is how long one test may run, as `go test` reads it. A defence that is off may well make its test wait for ever.
const testTime = "2m"

// copyTrees copies what git knows of or would take up, n times.
func copyTrees(ctx context.Context, root string, n int) (trees []string, err error) {
	out, err := command(ctx, root, nil, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	for range n {
		tree, err := os.MkdirTemp("", "letterlock-mutants-")
		if err != nil {
			return trees, err
		}
		trees = append(trees, tree)
		for _, name := range names {
			if err := copyFile(filepath.Join(root, name), filepath.Join(tree, name)); err != nil {
				return trees, err
			}
		}
	}
	return trees, nil
}

// copyFile copies a file; one that git knows and the working tree has no longer is left out.
func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

func removeTrees(trees []string) {
	for _, t := range trees {
		os.RemoveAll(t)
	}
}

// passAsTheyAre runs every named test without any mutant: a test that fails anyway would kill them all.
func passAsTheyAre(ctx context.Context, tree string, all []mutant) error {
	tests := map[string][]string{}
	for _, m := range all {
		if !slices.Contains(tests[m.pkg], m.test) {
			tests[m.pkg] = append(tests[m.pkg], m.test)
		}
	}
	for pkg, names := range tests {
		binary, err := build(ctx, tree, pkg)
		if err != nil {
			return fmt.Errorf("%s does not build as it is: %w", pkg, err)
		}
		out, err := runTest(ctx, tree, pkg, binary, strings.Join(names, "|"))
		if err != nil {
			return fmt.Errorf("%s fails as it is:\n%s", pkg, out)
		}
		for _, name := range names {
			if !bytes.Contains(out, []byte("--- PASS: "+strings.Trim(name, "^$")+" ")) {
				return fmt.Errorf("%s: %s did not run (is it skipped?)", pkg, name)
			}
		}
	}
	return nil
}

// try applies a mutant, runs its test and takes the mutant back.
func try(ctx context.Context, tree string, m mutant) (outcome, string) {
	if _, err := command(ctx, tree, m.patch, "git", "apply", "-"); err != nil {
		return broken, err.Error()
	}
	binary, err := build(ctx, tree, m.pkg)
	var out []byte
	var failed error
	if err == nil {
		out, failed = runTest(ctx, tree, m.pkg, binary, m.test)
	}
	// The copy must be as before for the next one, even after an interrupt.
	if _, back := command(context.WithoutCancel(ctx), tree, m.patch, "git", "apply", "--reverse", "-"); back != nil {
		return broken, back.Error()
	}
	switch {
	case err != nil:
		return broken, err.Error()
	case ctx.Err() != nil:
		return broken, "interrupted"
	case failed == nil:
		return survived, ""
	}
	return killed, reason(out)
}

// build makes the package's test binary. That it builds and that it fails are two things.
func build(ctx context.Context, tree, pkg string) (string, error) {
	binary := filepath.Join(tree, "mutant.test")
	args := append([]string{"test", "-c", "-o", binary}, buildFlags...)
	_, err := command(ctx, tree, nil, "go", append(args, pkg)...)
	return binary, err
}

func runTest(ctx context.Context, tree, pkg, binary, pattern string) ([]byte, error) {
	c := exec.CommandContext(ctx, binary, "-test.v", "-test.count=1", "-test.timeout="+testTime, "-test.run="+pattern)
	c.Dir = filepath.Join(tree, pkg)
	return c.CombinedOutput()
}

var failure = regexp.MustCompile(`(?m)^ +(\w+_test\.go:\d+: .+|\w+\.go:\d+: .+)$|^(panic: .+)$`)

// reason is the first thing that a failed test said, so that a reader sees what killed the mutant.
func reason(out []byte) string {
	s := bytes.TrimSpace(failure.Find(out))
	if len(s) > 160 {
		s = append(s[:160:160], "…"...)
	}
	return string(s)
}

// command runs a program in a copy of the tree.
func command(ctx context.Context, dir string, stdin []byte, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stdin = dir, bytes.NewReader(stdin)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", name, args[0], err, out, stderr.Bytes())
	}
	return out, nil
}
