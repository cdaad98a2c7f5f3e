// Command mutants switches off each defence in turn and expects its test to fail.
//
// A mutant is NAME.patch beside this file: a unified diff (-p1) that removes one defence, below two header lines:
//
//	# defence: one sentence
//	# test: ./package -run '^TestName$'
//
// The tree is copied once for each worker; nothing is changed in place. First every named test must pass as things are. Then each patch
// is applied to a copy, the test is built and run, and the patch is taken back. A mutant whose test still passes has survived; one that
// does not apply or does not build is broken, and proves nothing. Both end the command with 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	pattern := flag.String("run", "", "only mutants whose name matches this `regexp`")
	list := flag.Bool("list", false, "print the mutants and stop")
	workers := flag.Int("workers", max(1, runtime.NumCPU()), "how many run side by side")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ok, err := run(ctx, *pattern, *list, *workers)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, pattern string, list bool, workers int) (bool, error) {
	chosen, err := regexp.Compile(pattern)
	if err != nil {
		return false, err
	}
	root, err := findRoot(".")
	if err != nil {
		return false, err
	}
	all, err := readMutants(root)
	if err != nil {
		return false, err
	}
	all = slices.DeleteFunc(all, func(m mutant) bool { return !chosen.MatchString(m.name) })
	if len(all) == 0 {
		return false, fmt.Errorf("no mutant is called like %q", pattern)
	}
	if list {
		for _, m := range all {
			fmt.Printf("%-36s %s -run %s\n%-36s %s\n", m.name, m.pkg, m.test, "", m.defence)
		}
		return true, nil
	}
	trees, err := copyTrees(ctx, root, min(workers, len(all)))
	defer removeTrees(trees)
	if err != nil {
		return false, err
	}
	if err := passAsTheyAre(ctx, trees[0], all); err != nil {
		return false, err
	}
	return report(runAll(ctx, trees, all)), nil
}

// result is what became of one mutant.
type result struct {
	mutant
	outcome outcome
	detail  string
	took    time.Duration
}

type outcome string

const (
	killed   outcome = "killed"
	survived outcome = "SURVIVED"
	broken   outcome = "BROKEN"
)

// runAll lets each tree take the next mutant until there are none, and prints a line for each.
func runAll(ctx context.Context, trees []string, all []mutant) []result {
	results := make([]result, len(all))
	next := make(chan int)
	var running sync.WaitGroup
	for _, tree := range trees {
		running.Go(func() {
			for i := range next {
				start := time.Now()
				r := result{mutant: all[i]}
				r.outcome, r.detail = try(ctx, tree, all[i])
				r.took = time.Since(start).Round(100 * time.Millisecond)
				results[i] = r
				fmt.Printf("%-8s %-36s %6s  %s\n", r.outcome, r.name, r.took, r.detail)
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	running.Wait()
	return results
}

// report prints the table and says whether every mutant was killed.
func report(results []result) bool {
	count := map[outcome]int{}
	fmt.Printf("\n| mutant | test | result |\n|---|---|---|\n")
	for _, r := range results {
		count[r.outcome]++
		fmt.Printf("| %s | %s %s | %s |\n", r.name, r.pkg, strings.Trim(r.test, "^$"), r.outcome)
	}
	fmt.Printf("\n%d mutants: %d killed, %d survived, %d broken\n", len(results), count[killed], count[survived], count[broken])
	return count[killed] == len(results)
}
