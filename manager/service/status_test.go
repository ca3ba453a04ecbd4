package service

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/listeners"
)

func manyFaults(n int) (all []*listeners.Violation) {
	for i := range n {
		all = append(all, &listeners.Violation{Field: fmt.Sprintf("f[%d]", i), Message: strings.Repeat("x", i)})
	}
	return all
}

// Every reason of errors.proto has a code, the one that the proto says beside
// it, and every reason that has a code is in errors.proto.
func TestReasonCodes(t *testing.T) {
	values := pb.ErrorReason_ERROR_REASON_UNSPECIFIED.Descriptor().Values()
	for i := 1; i < values.Len(); i++ {
		name := strings.TrimPrefix(string(values.Get(i).Name()), "ERROR_REASON_")
		if _, ok := reasonCodes[listeners.Reason(name)]; !ok {
			t.Errorf("%s has no code", name)
		}
	}
	for reason := range reasonCodes {
		if _, ok := pb.ErrorReason_value["ERROR_REASON_"+string(reason)]; !ok {
			t.Errorf("%s is not in errors.proto", reason)
		}
	}
	// The comments of the proto name the code.
	text, err := os.ReadFile("../../proto/sockmgr/v1/errors.proto")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?s)// ([A-Z_]+): [^/]*?(?:\n *//[^\n]*)*\n +ERROR_REASON_([A-Z_]+) = `).FindAllStringSubmatch(string(text), -1)
	if len(rows) != len(reasonCodes) {
		t.Errorf("%d rows say a code, of %d", len(rows), len(reasonCodes))
	}
	for _, row := range rows {
		want := codes.Code(code.Code_value[row[1]])
		if got := reasonCodes[listeners.Reason(row[2])]; got != want {
			t.Errorf("%s is %v, and errors.proto says %v", row[2], got, want)
		}
	}
}

// The class of an error survives wrapping, and an errno goes along.
func TestWrappedErrors(t *testing.T) {
	for reason, want := range reasonCodes {
		fault := &listeners.Fault{Reason: reason, Message: "m", Fix: "f", Meta: map[string]string{"k": "v"}, Err: os.NewSyscallError("bind", unix.EADDRINUSE)}
		violation := &listeners.Violation{Field: "x", Message: "m", Reason: reason}
		for _, err := range []error{fault, fmt.Errorf("web: %w", fault), errors.Join(fault, errors.New("more")), violation, fmt.Errorf("web: %w", violation)} {
			st, _ := status.FromError(toStatus(err))
			var info *errdetails.ErrorInfo
			for _, d := range st.Details() {
				if x, ok := d.(*errdetails.ErrorInfo); ok {
					info = x
				}
			}
			if st.Code() != want || info.GetReason() != string(reason) || info.GetDomain() != "sockmgr" {
				t.Errorf("%v: %v", err, st)
			}
			if errors.As(err, &fault) && (info.GetMetadata()["errno"] != "EADDRINUSE" || info.GetMetadata()["fix"] != "f" || info.GetMetadata()["k"] != "v") {
				t.Errorf("%v: %v", err, info)
			}
		}
	}
	// System calls without a Fault of their own.
	for errno, want := range map[unix.Errno]codes.Code{
		unix.EMFILE: codes.ResourceExhausted, unix.ENOMEM: codes.ResourceExhausted, unix.EPERM: codes.PermissionDenied,
		unix.EAFNOSUPPORT: codes.InvalidArgument, unix.EIO: codes.Internal,
	} {
		if got := status.Code(toStatus(fmt.Errorf("web: %w", os.NewSyscallError("socket", errno)))); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}

// However much is wrong, the answer fits into the headers of a client that
// takes 8 KiB.
func TestStatusIsBounded(t *testing.T) {
	long := strings.Repeat("é\xff\n", 100_000)
	for name, err := range map[string]error{
		"fault":      &listeners.Fault{Reason: listeners.AddressInUse, Message: long, Fix: long, Meta: map[string]string{"a": long, "b": long}},
		"violations": &listeners.Violation{Field: long, Message: long},
		"plain":      errors.New(long),
	} {
		st, _ := status.FromError(toStatus(err))
		if size := proto.Size(st.Proto()); size > 5<<10 || st.Message() == "" {
			t.Errorf("%s: %d bytes", name, size)
		}
	}
	st, _ := status.FromError(toStatus(fmt.Errorf("x: %w", joinFaults(manyFaults(1000)))))
	if size := proto.Size(st.Proto()); size > 5<<10 {
		t.Errorf("%d bytes", size)
	}
}

func joinFaults(all []*listeners.Violation) error {
	errs := make([]error, 0, len(all))
	for _, v := range all {
		errs = append(errs, v)
	}
	return errors.Join(errs...)
}
