package witness

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
)

const (
	maxHashes = 63                                  // of a consistency proof
	maxBody   = proof.MaxCheckpoint + 45*64 + 1<<10 // bytes of a request: the checkpoint, the hashes in base64, and a line
)

// request is the body of add-checkpoint:
//
//	old SIZE            of the tree that the witness signed last
//	BASE64              a hash of the consistency proof; any number of such lines
//	(empty line)
//	CHECKPOINT          a signed note
type request struct {
	old    int64
	hashes tlog.TreeProof
	signed []byte
}

// parseRequest takes every line in one spelling alone.
func parseRequest(body []byte) (r request, err error) {
	if len(body) > maxBody {
		return r, chat.Errorf(chat.TooLarge, "the body is larger than %d bytes", maxBody)
	}
	head, signed, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return r, chat.Errorf(chat.Invalid, "the body is \"old SIZE\", the consistency proof, an empty line and the checkpoint")
	}
	r.signed = signed
	lines := strings.Split(string(head), "\n")
	size, ok := strings.CutPrefix(lines[0], "old ")
	if !ok {
		return r, chat.Errorf(chat.Invalid, "the first line is \"old SIZE\"")
	}
	if r.old, ok = parseSize(size); !ok {
		return r, chat.Errorf(chat.Invalid, "the old size is not a number without leading zeros")
	}
	if len(lines)-1 > maxHashes {
		return r, chat.Errorf(chat.Invalid, "a consistency proof has at most %d hashes", maxHashes)
	}
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != tlog.HashSize || base64.StdEncoding.EncodeToString(h) != line {
			return r, chat.Errorf(chat.Invalid, "a line of the consistency proof is not a hash of %d bytes in base64", tlog.HashSize)
		}
		r.hashes = append(r.hashes, tlog.Hash(h))
	}
	return r, nil
}

// parseSize reads a size in its one spelling.
func parseSize(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}

// format is what parseRequest reads.
func (r request) format() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", r.old)
	for _, h := range r.hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n")
	b.Write(r.signed)
	return b.Bytes()
}
