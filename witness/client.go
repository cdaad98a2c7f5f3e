package witness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
)

const maxAnswer = 16 << 10 // bytes

// Client asks witnesses for cosignatures. The zero value works.
type Client struct {
	HTTP *http.Client // nil: http.DefaultClient. Its redirects are not followed: a POST is for whom it was meant
}

// Prove makes the consistency proof between two sizes of the log.
type Prove func(ctx context.Context, from, to int64) ([]proof.Hash, error)

// Cosign has a checkpoint of that size signed by the witness at a submission prefix. known is the size that the witness signed last, as far as the
// caller knows (0 if it does not); where the witness says another one, it is asked again. It returns the witness' signature lines, which are
// not checked yet (proof.WitnessPolicy's Cosigned does).
//
// A witness that has signed more than this checkpoint, or another tree, is chat.Tampered: the log was set back, or the witness errs. One that
// cannot be reached or does not answer as it should is chat.Unavailable.
func (c *Client) Cosign(ctx context.Context, prefix string, signed []byte, size, known int64, prove Prove) (lines string, err error) {
	known = min(known, size)
	lines, conflict, err := c.ask(ctx, prefix, signed, size, known, prove)
	if conflict != nil && conflict.Size != known {
		if conflict.Size > size {
			return "", chat.Wrap(chat.Tampered, conflict, "the witness has signed %d entries of this log, which has %d here: its database is older than what was published, or the witness errs",
				conflict.Size, size)
		}
		lines, conflict, err = c.ask(ctx, prefix, signed, size, conflict.Size, prove)
	}
	if conflict != nil {
		return "", chat.Wrap(chat.Tampered, conflict, "the witness has signed another tree of %d entries of this log: it was set back and written anew, or the witness errs", conflict.Size)
	}
	return lines, err
}

// ask sends one request.
func (c *Client) ask(ctx context.Context, prefix string, signed []byte, size, old int64, prove Prove) (string, *Conflict, error) {
	req := request{old: old, signed: signed}
	if old > 0 && old < size {
		hashes, err := prove(ctx, old, size)
		if err != nil {
			return "", nil, err
		}
		for _, h := range hashes {
			req.hashes = append(req.hashes, tlog.Hash(h))
		}
	}
	status, kind, body, err := c.post(ctx, prefix, req.format())
	if err != nil {
		return "", nil, err
	}
	switch status {
	case http.StatusOK:
		return string(body), nil, nil
	case http.StatusConflict:
		size, ok := parseSize(strings.TrimSuffix(string(body), "\n"))
		if !ok || kind != sizeType {
			return "", nil, chat.Errorf(chat.Unavailable, "the witness' answer (409) says no size")
		}
		return "", &Conflict{Size: size}, nil
	case http.StatusUnprocessableEntity:
		return "", nil, chat.Errorf(chat.Tampered, "the witness finds this log wrong: %s", sentence(body))
	}
	return "", nil, chat.Errorf(chat.Unavailable, "the witness answers %d: %s", status, sentence(body))
}

func (c *Client) post(ctx context.Context, prefix string, body []byte) (status int, kind string, answer []byte, err error) {
	to, err := url.JoinPath(prefix, addCheckpoint)
	if err != nil {
		return 0, "", nil, chat.Wrap(chat.Invalid, err, "the witness' URL is malformed")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, chat.Wrap(chat.Invalid, err, "the witness' URL is malformed")
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	h := http.DefaultClient
	if c.HTTP != nil {
		h = c.HTTP
	}
	direct := *h
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := direct.Do(req)
	if err != nil {
		return 0, "", nil, chat.Wrap(chat.Unavailable, err, "the witness cannot be reached")
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("more than %d bytes", maxAnswer)
	}
	if err != nil {
		return 0, "", nil, chat.Wrap(chat.Unavailable, err, "the witness' answer cannot be read")
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), answer, nil
}

// sentence is the first line of what a witness said, for a log file.
func sentence(body []byte) string {
	line, _, _ := bytes.Cut(body, []byte("\n"))
	if len(line) > 200 {
		line = line[:200]
	}
	return strings.ToValidUTF8(string(line), "?")
}
