package service

import (
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/sockmgr/sockmgr/listeners"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// pageSize checks the size asked for; 0 is the default, more than the most is
// the most (AIP-158).
func pageSize(n int32) (int, error) {
	switch {
	case n < 0:
		return 0, &listeners.Violation{Field: "page_size", Message: "is negative"}
	case n == 0:
		return defaultPage, nil
	default:
		return min(int(n), maxPage), nil
	}
}

// makeToken says where the next page begins. It is good for the same query of
// the same kind of things only, so it carries a mark of both.
func makeToken(at, kind, query string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenMark(at, kind, query) + at))
}

func tokenMark(at, kind, query string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(kind + "\x00" + query + "\x00" + at)) // never fails (package hash)
	return fmt.Sprintf("%08x:", h.Sum32())
}

func parseToken(token, kind, query string) (at string, err error) {
	if token == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	_, at, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok || string(raw) != tokenMark(at, kind, query)+at {
		return "", badToken()
	}
	return at, nil
}

func badToken() error {
	return &listeners.Fault{
		Reason: listeners.PageTokenInvalid, Message: "the page token is unknown or from another query", Fix: "begin again without it",
	}
}
