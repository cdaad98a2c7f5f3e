package vault

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"

	"letterlock/chat"
)

// key is the vault key. It prints as a placeholder, whatever the verb.
type key [32]byte

// Format prints a placeholder for every verb.
func (key) Format(f fmt.State, _ rune) { io.WriteString(f, "(vault key)") }

const (
	keyHeader     = "letterlock vault key v1\n"
	ageHeader     = "age-encryption.org/"
	maxKeyFile    = 1 << 10
	maxPlainKey   = 128
	maxWorkFactor = 18 // of scrypt: 256 MiB and about a second; a file that asks for more is refused
)

func newKey() (k key) {
	rand.Read(k[:]) // does not fail
	return k
}

// newSeal is AES-256-GCM with a random nonce before each ciphertext. With one key 2^32 values may be sealed (NIST SP 800-38D
// section 8.3); a device that seals a thousand a day takes 11,000 years.
func newSeal(k key) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return seal, nil
}

// writeKey writes a key file and syncs it: wrapped if there is somebody to ask for a passphrase.
func writeKey(path string, k key, o Options) error {
	data := []byte(keyHeader + base64.StdEncoding.EncodeToString(k[:]) + "\n")
	defer clear(data)
	if o.Passphrase != nil {
		passphrase, err := o.ask()
		if err != nil {
			return err
		}
		if data, err = wrap(data, passphrase, o.workFactor); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return syncFolder(filepath.Dir(path))
}

// readKey reads a key file that nobody else can read.
func readKey(path string, o Options) (key, error) {
	f, err := os.Open(path)
	if err != nil {
		return key{}, fmt.Errorf("vault: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return key{}, fmt.Errorf("vault: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return key{}, chat.Errorf(chat.Forbidden, "vault: others can read the key: run chmod 600 %s", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return key{}, fmt.Errorf("vault: %w", err)
	}
	defer clear(data)
	return parseKey(data, o)
}

// parseKey reads the content of a key file, plain or wrapped.
func parseKey(data []byte, o Options) (key, error) {
	if len(data) > maxKeyFile {
		return key{}, damagedKey()
	}
	if !bytes.HasPrefix(data, []byte(ageHeader)) {
		return parsePlainKey(data)
	}
	if o.Passphrase == nil {
		return key{}, chat.Errorf(chat.Unauthenticated, "vault: the key is protected by a passphrase")
	}
	passphrase, err := o.ask()
	if err != nil {
		return key{}, err
	}
	r, err := unwrap(bytes.NewReader(data), passphrase)
	if err != nil {
		return key{}, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxPlainKey+1))
	if err != nil {
		return key{}, damagedKey()
	}
	defer clear(plain)
	return parsePlainKey(plain)
}

func parsePlainKey(data []byte) (k key, err error) {
	text, ok := bytes.CutPrefix(data, []byte(keyHeader))
	if !ok || len(data) > maxPlainKey || len(text) != base64.StdEncoding.EncodedLen(len(k))+1 || text[len(text)-1] != '\n' {
		return key{}, damagedKey()
	}
	var raw [33]byte // what 44 characters of base64 may decode to
	defer clear(raw[:])
	n, err := base64.StdEncoding.Strict().Decode(raw[:], text[:len(text)-1])
	if err != nil || n != len(k) {
		return key{}, damagedKey()
	}
	copy(k[:], raw[:])
	return k, nil
}

func damagedKey() error { return chat.Errorf(chat.Tampered, "vault: the key file is damaged") }

// ask returns the passphrase as age wants it. The answer is overwritten; the copy that age holds is not.
func (o Options) ask() (string, error) {
	answer, err := o.Passphrase()
	if err != nil {
		return "", err
	}
	defer clear(answer)
	if len(answer) == 0 {
		return "", chat.Errorf(chat.Unauthenticated, "vault: the passphrase is empty")
	}
	return string(answer), nil
}

// wrap encrypts data with a passphrase. A work factor of 0 is the usual one.
func wrap(data []byte, passphrase string, workFactor int) ([]byte, error) {
	var out bytes.Buffer
	w, err := wrapTo(&out, passphrase, workFactor)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return out.Bytes(), nil
}

func wrapTo(out io.Writer, passphrase string, workFactor int) (io.WriteCloser, error) {
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, chat.Errorf(chat.Unauthenticated, "vault: the passphrase is empty")
	}
	if workFactor == 0 {
		workFactor = maxWorkFactor
	}
	recipient.SetWorkFactor(workFactor)
	w, err := age.Encrypt(out, recipient)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return w, nil
}

// unwrap decrypts what wrap made. A damaged file and a wrong passphrase look alike.
func unwrap(in io.Reader, passphrase string) (io.Reader, error) {
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, chat.Errorf(chat.Unauthenticated, "vault: the passphrase is empty")
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	r, err := age.Decrypt(in, identity)
	if err != nil {
		return nil, chat.Wrap(chat.Unauthenticated, err, "vault: the passphrase is wrong")
	}
	return r, nil
}
