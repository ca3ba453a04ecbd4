package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
)

// ask asks a question on the terminal. Any answer but yes is an error, which
// says what has not been done.
func (a *app) ask(ctx context.Context, question, undone string) error {
	a.tell(question + " [y/N] ")
	answer, err := interruptible(ctx, func() (string, error) { return bufio.NewReader(a.env.Stdin).ReadString('\n') })
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return failf(codes.Unknown, "%s: the answer was not yes", undone)
}
