package service

import (
	"context"
	"maps"
	"slices"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// WhoAmI is DaemonService. Who may do nothing learns as what it is known here
// from the refusal.
func (s *daemonService) WhoAmI(ctx context.Context, _ *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) {
	who := callerOf(ctx)
	resp := &pb.WhoAmIResponse{Actor: who.String(), Role: who.granted}
	for _, g := range who.grants {
		resp.Grants = append(resp.Grants, &pb.Grant{Rule: g.Rule, Role: pb.Role(g.Role), Policy: g.Policy.Lines()})
	}
	roles := methodRoles()
	for _, method := range slices.Sorted(maps.Keys(roles)) {
		if need := roles[method]; need != pb.Role_ROLE_UNSPECIFIED && who.granted >= need {
			resp.Methods = append(resp.Methods, method)
		}
	}
	return resp, nil
}
