package vault

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"letterlock/chat"
)

func answer(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

func wrapped(passphrase string) Options {
	return Options{Passphrase: answer(passphrase), workFactor: 1}
}

func open(t *testing.T, dir string, o Options) *Vault {
	t.Helper()
	v, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func shut(t *testing.T, v *Vault) {
	t.Helper()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, v *Vault, bucket, name, value string) {
	t.Helper()
	if err := v.Update(func(tx *Tx) error { return tx.Put(bucket, name, []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

// get returns "-" for a value that is not there.
func get(t *testing.T, v *Vault, bucket, name string) (string, error) {
	t.Helper()
	result := "-"
	err := v.View(func(tx *Tx) error {
		value, ok, err := tx.Get(bucket, name)
		if ok {
			result = string(value)
		}
		return err
	})
	return result, err
}

func want(t *testing.T, v *Vault, bucket, name, value string) {
	t.Helper()
	if got, err := get(t, v, bucket, name); err != nil || got != value {
		t.Errorf("%s/%s is %q, want %q (%v)", bucket, name, got, value, err)
	}
}

// raw changes the database behind the vault's back.
func raw(t *testing.T, dir string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
}

// copyOf is the folder as a crash at this moment would leave it.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{keyFile, newKeyFile, stateFile, stateFile + "-wal"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestPutGetDeleteList(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a folder?with#odd%20signs")
	v := open(t, dir, Options{})
	want(t, v, "keys", "device", "-")
	put(t, v, "keys", "device", "first")
	put(t, v, "keys", "device", "second")
	put(t, v, "groups", "device", "")
	want(t, v, "keys", "device", "second")
	want(t, v, "groups", "device", "")
	want(t, v, "keys", "other", "-")
	err := v.Update(func(tx *Tx) error {
		for _, n := range []string{"b", "a", "c", "aa"} {
			if err := tx.Put("list", n, []byte(n)); err != nil {
				return err
			}
		}
		return tx.Delete("keys", "device")
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, v, "keys", "device", "-")
	for _, tc := range []struct {
		after string
		limit int
		names []string
	}{{"", 9, []string{"a", "aa", "b", "c"}}, {"", 2, []string{"a", "aa"}}, {"aa", 2, []string{"b", "c"}}, {"c", 2, nil}, {"ab", 1, []string{"b"}}} {
		err := v.View(func(tx *Tx) error {
			names, err := tx.List("list", tc.after, tc.limit)
			if !slices.Equal(names, tc.names) {
				t.Errorf("after %q: %q, want %q", tc.after, names, tc.names)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	shut(t, v)
	v = open(t, dir, Options{})
	want(t, v, "groups", "device", "")
	want(t, v, "list", "aa", "aa")
	for _, file := range []string{"", lockFile, keyFile, stateFile, stateFile + "-wal"} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: %v %v", file, info, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	v := open(t, t.TempDir(), Options{})
	long := strings.Repeat("x", 256)
	for name, do := range map[string]struct {
		tx   func(*Tx) error
		kind chat.Kind
	}{
		"the vault's own bucket": {func(tx *Tx) error { return tx.Put("", checkName, nil) }, chat.Invalid},
		"deleting in it":         {func(tx *Tx) error { return tx.Delete("", checkName) }, chat.Invalid},
		"no name":                {func(tx *Tx) error { return tx.Put("b", "", nil) }, chat.Invalid},
		"a long name":            {func(tx *Tx) error { return tx.Put("b", long, nil) }, chat.Invalid},
		"a long bucket":          {func(tx *Tx) error { return tx.Put(long[:65], "n", nil) }, chat.Invalid},
		"a control character":    {func(tx *Tx) error { return tx.Put("b", "a\x00b", nil) }, chat.Invalid},
		"no UTF-8":               {func(tx *Tx) error { return tx.Put("b", "\xff", nil) }, chat.Invalid},
		"a large value":          {func(tx *Tx) error { return tx.Put("b", "n", make([]byte, MaxValue+1)) }, chat.TooLarge},
		"a list of nothing":      {func(tx *Tx) error { _, err := tx.List("b", "", 0); return err }, chat.Invalid},
	} {
		if err := v.Update(do.tx); !chat.Is(err, do.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.View(func(tx *Tx) error { return tx.Put("b", "n", nil) }); err == nil {
		t.Error("View changes")
	}
	if err := v.View(func(tx *Tx) error { return tx.Delete("b", "n") }); err == nil {
		t.Error("View deletes")
	}
	largest := make([]byte, MaxValue)
	if err := v.Update(func(tx *Tx) error { return tx.Put("b", "n", largest) }); err != nil {
		t.Errorf("the largest value: %v", err)
	}
	if got, _ := get(t, v, "b", "n"); len(got) != MaxValue {
		t.Errorf("the largest value has %d bytes", len(got))
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	put(t, v, "b", "old", "1")
	stop := errors.New("stop")
	change := func(tx *Tx) error {
		return errors.Join(tx.Put("b", "old", []byte("2")), tx.Put("b", "new", []byte("2")))
	}
	if err := v.Update(func(tx *Tx) error { return errors.Join(change(tx), stop) }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	func() {
		defer func() { recover() }()
		v.Update(func(tx *Tx) error { change(tx); panic("stop") })
	}()
	want(t, v, "b", "old", "1")
	want(t, v, "b", "new", "-")

	var during string
	if err := v.Update(func(tx *Tx) error { err := change(tx); during = copyOf(t, dir); return err }); err != nil {
		t.Fatal(err)
	}
	crashed := open(t, during, Options{}) // before the commit
	want(t, crashed, "b", "old", "1")
	want(t, crashed, "b", "new", "-")
	crashed = open(t, copyOf(t, dir), Options{}) // after it, without Close
	want(t, crashed, "b", "old", "2")
	want(t, crashed, "b", "new", "2")
}

// A process that is killed loses nothing that it was told to be written.
func TestKilledProcessLosesNothing(t *testing.T) {
	const env = "LETTERLOCK_VAULT_TEST_DIR"
	if dir := os.Getenv(env); dir != "" { // the process that is killed: counts up in two values at once
		v, err := Open(dir, Options{})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		start, _ := get(t, v, "b", "x")
		n, _ := strconv.Atoi(start)
		for {
			n++
			value := []byte(strconv.Itoa(n))
			if err := v.Update(func(tx *Tx) error { return errors.Join(tx.Put("b", "x", value), tx.Put("b", "y", value)) }); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			fmt.Printf("acknowledged %d\n", n)
		}
	}
	dir := t.TempDir()
	for round := range 5 {
		child := exec.Command(os.Args[0], "-test.run=^TestKilledProcessLosesNothing$")
		child.Env = append(os.Environ(), env+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		last := -1
		for range 20 + round { // then kill it in the middle of the next one
			var n int
			if _, err := fmt.Fscanf(out, "acknowledged %d\n", &n); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			last = n
		}
		child.Process.Kill()
		rest, _ := io.ReadAll(out)
		child.Wait()
		for _, line := range strings.Split(string(rest), "\n") {
			if n, err := strconv.Atoi(strings.TrimPrefix(line, "acknowledged ")); err == nil && n == last+1 {
				last = n
			}
		}
		v, err := Open(dir, Options{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		x, errX := get(t, v, "b", "x")
		y, errY := get(t, v, "b", "y")
		if n, _ := strconv.Atoi(x); errX != nil || errY != nil || x != y || n < last {
			t.Errorf("round %d: %d was acknowledged, there are %q and %q (%v, %v)", round, last, x, y, errX, errY)
		}
		shut(t, v)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !chat.Is(err, chat.Unavailable) || !strings.Contains(err.Error(), "another client is running on this folder") {
		t.Errorf("a second one: %v", err)
	}
	shut(t, v)
	open(t, dir, Options{})
}

func TestWaitingForTheOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), lockFile)
	synctest.Test(t, func(t *testing.T) {
		first, err := acquire(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := acquire(path, time.Second); !chat.Is(err, chat.Unavailable) || time.Since(start) < time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		go func() {
			time.Sleep(5 * time.Second)
			first.Close()
		}()
		second, err := acquire(path, 10*time.Second)
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		second.Close()
	})
}

func TestPassphrase(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, wrapped("correct horse"))
	put(t, v, "b", "n", "value")
	shut(t, v)
	for name, o := range map[string]Options{"no passphrase": {}, "a wrong one": wrapped("battery staple"), "an empty one": wrapped("")} {
		if _, err := Open(dir, o); !chat.Is(err, chat.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := errors.New("no terminal")
	if _, err := Open(dir, Options{Passphrase: func() ([]byte, error) { return nil, gone }}); !errors.Is(err, gone) {
		t.Errorf("no answer: %v", err)
	}
	given := []byte("correct horse")
	v = open(t, dir, Options{Passphrase: func() ([]byte, error) { return given, nil }})
	want(t, v, "b", "n", "value")
	if !bytes.Equal(given, make([]byte, len(given))) {
		t.Error("the passphrase was not overwritten")
	}
	if _, err := Open(t.TempDir(), wrapped("")); !chat.Is(err, chat.Unauthenticated) {
		t.Errorf("a new vault with an empty passphrase: %v", err)
	}
}

func TestExpensiveKeyFilesAreRefused(t *testing.T) {
	data, err := wrap([]byte(keyHeader), "x", 1)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := bytes.Cut(data, []byte("\n-> scrypt "))
	salt, rest, _ := bytes.Cut(rest, []byte(" 1\n"))
	data = slices.Concat(head, []byte("\n-> scrypt "), salt, []byte(" 22\n"), rest)
	if _, err := parseKey(data, wrapped("x")); !chat.Is(err, chat.Unauthenticated) || !strings.Contains(err.Error(), "work factor too large") {
		t.Errorf("4 GiB to open a key: %v", err)
	}
}

func TestKeyThatOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	shut(t, open(t, dir, Options{}))
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o660} {
		if err := os.Chmod(filepath.Join(dir, keyFile), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); !chat.Is(err, chat.Forbidden) {
			t.Errorf("%o: %v", mode, err)
		}
	}
}

func TestAnotherKey(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	shut(t, open(t, one, Options{}))
	shut(t, open(t, two, Options{}))
	other, err := os.ReadFile(filepath.Join(two, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one, keyFile), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(one, Options{}); !chat.Is(err, chat.Tampered) {
		t.Errorf("%v", err)
	}
}

func TestValuesCannotMove(t *testing.T) {
	for name, statements := range map[string][]string{
		"to another name":   {"UPDATE sealed SET name = 'z' WHERE bucket = 'b' AND name = 'x'", "UPDATE sealed SET name = 'x' WHERE bucket = 'b' AND name = 'y'"},
		"to another bucket": {"DELETE FROM sealed WHERE bucket = 'b' AND name = 'x'", "UPDATE sealed SET bucket = 'b' WHERE bucket = 'c'"},
		"changed":           {"UPDATE sealed SET value = zeroblob(40) WHERE bucket = 'b' AND name = 'x'"},
		"cut":               {"UPDATE sealed SET value = substr(value, 1, 20) WHERE bucket = 'b' AND name = 'x'"},
		"emptied":           {"UPDATE sealed SET value = x'' WHERE bucket = 'b' AND name = 'x'"},
		"made text":         {"UPDATE sealed SET value = 'one' WHERE bucket = 'b' AND name = 'x'"},
	} {
		dir := t.TempDir()
		v := open(t, dir, Options{})
		put(t, v, "b", "x", "one")
		put(t, v, "b", "y", "two")
		put(t, v, "c", "x", "three")
		shut(t, v)
		raw(t, dir, statements...)
		v = open(t, dir, Options{})
		if got, err := get(t, v, "b", "x"); !chat.Is(err, chat.Tampered) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestCrashAfterCreation(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	crashed := open(t, copyOf(t, dir), Options{})
	put(t, crashed, "b", "n", "value")
	want(t, crashed, "b", "n", "value")
}

func TestDamagedFolders(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	for i := range 50 {
		put(t, v, "b", fmt.Sprintf("%03d", i), strings.Repeat("x", 1000))
	}
	shut(t, v)
	for name, tc := range map[string]struct {
		do   func(dir string) error
		kind chat.Kind
	}{
		"no key":          {func(d string) error { return os.Remove(filepath.Join(d, keyFile)) }, chat.Tampered},
		"no database":     {func(d string) error { return os.Remove(filepath.Join(d, stateFile)) }, chat.Tampered},
		"an empty key":    {func(d string) error { return os.Truncate(filepath.Join(d, keyFile), 0) }, chat.Tampered},
		"half a key":      {func(d string) error { return os.Truncate(filepath.Join(d, keyFile), 40) }, chat.Tampered},
		"an empty file":   {func(d string) error { return os.Truncate(filepath.Join(d, stateFile), 0) }, chat.Tampered},
		"a hundred bytes": {func(d string) error { return os.Truncate(filepath.Join(d, stateFile), 100) }, chat.Tampered},
		"not a database":  {func(d string) error { return os.WriteFile(filepath.Join(d, stateFile), make([]byte, 8192), 0o600) }, chat.Tampered},
		"a large key":     {func(d string) error { return os.WriteFile(filepath.Join(d, keyFile), make([]byte, 2000), 0o600) }, chat.Tampered},
		"another table":   {func(d string) error { raw(t, d, "ALTER TABLE sealed RENAME TO x"); return nil }, chat.Tampered},
		"no check":        {func(d string) error { raw(t, d, "DELETE FROM sealed WHERE bucket = ''"); return nil }, chat.Tampered},
		"a later format":  {func(d string) error { raw(t, d, "PRAGMA user_version = 2"); return nil }, chat.Incompatible},
	} {
		broken := copyOf(t, dir)
		if err := tc.do(broken); err != nil {
			t.Fatal(err)
		}
		if v, err := Open(broken, Options{}); !chat.Is(err, tc.kind) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				v.Close()
			}
		}
	}
}

// A database that lost its end must not pass for one that has less in it.
func TestTruncatedDatabase(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	const n = 30
	for i := range n {
		put(t, v, "b", fmt.Sprintf("%03d", i), strings.Repeat("x", 1000))
	}
	shut(t, v)
	info, err := os.Stat(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	for size := int64(1); size < info.Size(); size += 1499 {
		broken := copyOf(t, dir)
		if err := os.Truncate(filepath.Join(broken, stateFile), size); err != nil {
			t.Fatal(err)
		}
		v, err := Open(broken, Options{})
		if err != nil {
			continue
		}
		values, failed := 0, false
		for i := range n {
			got, err := get(t, v, "b", fmt.Sprintf("%03d", i))
			failed = failed || err != nil
			if err == nil && got == strings.Repeat("x", 1000) {
				values++
			} else if err == nil {
				t.Errorf("%d bytes: value %d is %q without an error", size, i, got)
			}
		}
		if !failed && values != n {
			t.Errorf("%d bytes: %d values and no error", size, values)
		}
		v.Close()
	}
}

// Making a folder may be interrupted anywhere before the key has its name.
func TestInterruptedCreation(t *testing.T) {
	for name, files := range map[string][]string{
		"nothing yet":      {},
		"half a key":       {newKeyFile},
		"a key, no tables": {newKeyFile, stateFile},
		"all but the name": {newKeyFile, stateFile, stateFile + "-wal"},
	} {
		dir := t.TempDir()
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte("cut off"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		v, err := Open(dir, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		put(t, v, "b", "n", "value")
		shut(t, v)
		if _, err := os.Stat(filepath.Join(dir, newKeyFile)); err == nil {
			t.Errorf("%s: %s is still there", name, newKeyFile)
		}
		want(t, open(t, dir, Options{}), "b", "n", "value")
	}
}

// contains looks for secret in every file of the folder.
func contains(t *testing.T, dir string, secret []byte) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, secret) {
			return f.Name()
		}
	}
	return ""
}

func TestNoPlaintextInTheFolder(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, wrapped("correct horse"))
	canary := []byte("canary-9f1c2e7b53d84a60")
	for i := range 20 {
		put(t, v, "b", strconv.Itoa(i), strings.Repeat(string(canary), 50))
	}
	k, err := readKey(filepath.Join(dir, keyFile), wrapped("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"in use", "closed"} {
		for name, secret := range map[string][]byte{
			"the value": canary, "the value in base64": []byte(base64.StdEncoding.EncodeToString(canary)[:28]),
			"the value in hex": []byte(hex.EncodeToString(canary)), "the key": k[:],
			"the key in base64": []byte(base64.StdEncoding.EncodeToString(k[:])[:40]), "the passphrase": []byte("correct horse"),
		} {
			if file := contains(t, dir, secret); file != "" {
				t.Errorf("%s: %s stands in %s", when, name, file)
			}
		}
		if when == "in use" {
			if file := contains(t, dir, []byte("SQLite format 3")); file == "" {
				t.Error("the search finds nothing at all")
			}
			shut(t, v)
		}
	}
}

func TestDeletedValuesLeaveTheDisk(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir, Options{})
	sealed := map[string][]byte{}
	err := v.Update(func(tx *Tx) error {
		for name, size := range map[string]int{"small": 40, "large": 20000, "replaced": 3000} {
			if err := tx.Put("b", name, make([]byte, size)); err != nil {
				return err
			}
			var value []byte
			if err := tx.sql.QueryRow("SELECT value FROM sealed WHERE name = $1", name).Scan(&value); err != nil {
				return err
			}
			sealed[name] = value[len(value)-32:]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	shut(t, v)
	for name, end := range sealed {
		if contains(t, dir, end) == "" {
			t.Fatalf("%s is not even there before it is deleted", name)
		}
	}
	v = open(t, dir, Options{})
	err = v.Update(func(tx *Tx) error {
		return errors.Join(tx.Delete("b", "small"), tx.Delete("b", "large"), tx.Put("b", "replaced", make([]byte, 10)))
	})
	if err != nil {
		t.Fatal(err)
	}
	after := copyOf(t, dir) // as a crash leaves it, opened and closed again
	for _, d := range []string{dir, after} {
		if d == after {
			v = open(t, after, Options{})
			if log, err := os.Stat(filepath.Join(after, stateFile+"-wal")); err == nil && log.Size() > 0 {
				t.Errorf("the log of the crash still has %d bytes", log.Size())
			}
		}
		shut(t, v)
		for name, end := range sealed {
			if file := contains(t, d, end); file != "" {
				t.Errorf("%s still stands in %s", name, file)
			}
		}
	}
}

func TestBackup(t *testing.T) {
	v := open(t, t.TempDir(), Options{})
	for i := range backupPage + 10 {
		put(t, v, "many", fmt.Sprintf("%04d", i), strconv.Itoa(i))
	}
	put(t, v, "b", "empty", "")
	put(t, v, "b", "large", strings.Repeat("x", 100_000))
	var backup bytes.Buffer
	if err := v.Backup(&backup, wrapped("paper")); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(backup.Bytes(), []byte("many")) {
		t.Error("names stand in the backup in clear")
	}
	if err := v.Backup(io.Discard, Options{}); !chat.Is(err, chat.Invalid) {
		t.Errorf("a backup without a passphrase: %v", err)
	}

	// Cut between two rows, where the bytes alone look whole: age says so by an error at the end.
	cut := io.MultiReader(strings.NewReader(backupHeader), iotest.ErrReader(io.ErrUnexpectedEOF))
	if err := readBackup(bufio.NewReader(cut), nil); !chat.Is(err, chat.Tampered) {
		t.Errorf("cut between two rows: %v", err)
	}

	dir := t.TempDir()
	for name, tc := range map[string]struct {
		data       []byte
		passphrase string
		kind       chat.Kind
	}{
		"a wrong passphrase": {backup.Bytes(), "pen", chat.Unauthenticated},
		"cut off":            {backup.Bytes()[:backup.Len()-1], "paper", chat.Tampered},
		"half of it":         {backup.Bytes()[:backup.Len()/2], "paper", chat.Tampered},
		"nothing":            {nil, "paper", chat.Unauthenticated},
	} {
		if _, err := Restore(dir, bytes.NewReader(tc.data), answer(tc.passphrase), Options{}); !chat.Is(err, tc.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	again, err := Restore(dir, bytes.NewReader(backup.Bytes()), answer("paper"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, again, "many", "0000", "0")
	want(t, again, "many", fmt.Sprintf("%04d", backupPage+9), strconv.Itoa(backupPage+9))
	want(t, again, "b", "empty", "")
	want(t, again, "b", "large", strings.Repeat("x", 100_000))
	shut(t, again)
	if _, err := Restore(dir, bytes.NewReader(backup.Bytes()), answer("paper"), Options{}); !chat.Is(err, chat.Exists) {
		t.Errorf("over another vault: %v", err)
	}
}

func TestRestoredUntilCleared(t *testing.T) {
	restored := func(v *Vault) (is bool) {
		t.Helper()
		if err := v.View(func(tx *Tx) (err error) { is, err = tx.Restored(); return err }); err != nil {
			t.Fatal(err)
		}
		return is
	}
	v := open(t, t.TempDir(), Options{})
	if restored(v) {
		t.Error("a new vault is restored")
	}
	var backup bytes.Buffer
	if err := v.Backup(&backup, wrapped("paper")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	again, err := Restore(dir, &backup, answer("paper"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	shut(t, again)
	again = open(t, dir, Options{})
	if !restored(again) {
		t.Error("the mark is gone without being cleared")
	}
	if err := again.Update((*Tx).ClearRestored); err != nil || restored(again) {
		t.Errorf("the mark stays: %v", err)
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	k := newKey()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if out := fmt.Sprintf(verb, k); out != "(vault key)" {
			t.Errorf("%s prints %q", verb, out)
		}
	}
}
