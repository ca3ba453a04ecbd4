package service

import (
	"context"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

var findingToPB = map[manager.FindingStatus]pb.Finding_Status{
	manager.FindingOK: pb.Finding_STATUS_OK, manager.FindingWarning: pb.Finding_STATUS_WARNING, manager.FindingFailed: pb.Finding_STATUS_FAILED,
}

// Diagnose is DaemonService.
func (s *daemonService) Diagnose(ctx context.Context, _ *pb.DiagnoseRequest) (*pb.DiagnoseResponse, error) {
	found, err := s.c.Manager.Diagnose(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.DiagnoseResponse{}
	for _, f := range found {
		resp.Findings = append(resp.Findings, &pb.Finding{Check: f.Check, Status: findingToPB[f.Status], Message: f.Message, Fix: f.Fix})
	}
	return resp, nil
}
