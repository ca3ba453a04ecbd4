package cli

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/codes"
)

// With -o json stderr is one object, whatever fails, with the exit code of the
// process.
func TestOneErrorObject(t *testing.T) {
	f := inhabited(t)
	gone := func(id string) string {
		return `{"exitCode":4,"code":"NOT_FOUND","reason":"LISTENER_NOT_FOUND","message":"no listener is called ` + id + `"}`
	}
	for _, c := range []struct {
		names  []string
		exit   int
		stderr string
	}{
		{[]string{"nix"}, 4, `{"error":` + gone("nix") + `}`},
		{[]string{"nix", "web"}, 10, `{"error":{"exitCode":10,"code":"NOT_FOUND","reason":"LISTENER_NOT_FOUND","message":"1 of 2 failed","errors":[` + gone("nix") + `]}}`},
		{[]string{"nix", "web", "nix2"}, 10, `{"error":{"exitCode":10,"code":"NOT_FOUND","reason":"LISTENER_NOT_FOUND","message":"2 of 3 failed","errors":[` + gone("nix") + "," + gone("nix2") + `]}}`},
		{[]string{"nix", "nix2"}, 4, `{"error":{"exitCode":4,"code":"NOT_FOUND","reason":"LISTENER_NOT_FOUND","message":"2 of 2 failed","errors":[` + gone("nix") + "," + gone("nix2") + `]}}`},
	} {
		got := f.run(t, append([]string{"stop", "--no-wait", "-o", "json"}, c.names...)...)
		if got.exit != c.exit {
			t.Errorf("%v: exit %d, want %d", c.names, got.exit, c.exit)
		}
		same(t, "stderr", got.stderr, c.stderr+"\n")
	}
}

// A note goes into the object of the error, or is one of its own.
func TestNotesAreJSON(t *testing.T) {
	for _, c := range []struct {
		failure *failure
		want    string
	}{
		{nil, `{"notes":["a b"]}`},
		{failf(codes.Internal, "no"), `{"error":{"exitCode":1,"code":"INTERNAL","message":"no","notes":["a b"]}}`},
	} {
		var stderr bytes.Buffer
		a := &app{output: "json", env: Env{Stderr: &stderr}}
		a.note("a %s", "b")
		if c.failure != nil {
			a.printFailure(a.whole(c.failure))
		}
		a.printNotes()
		same(t, "stderr", stderr.String(), c.want+"\n")
	}
}
