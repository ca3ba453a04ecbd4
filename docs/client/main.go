// Command client prints the listeners that run and their accept queues.
package main

import (
	"context"
	"log"

	"github.com/sockmgr/sockmgr/client"
	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func main() {
	log.SetFlags(0)
	c, err := client.Dial("") // where SOCKMGR_ADDR says
	if err != nil {
		log.Fatal(err)
	}
	resp, err := pb.NewListenerServiceClient(c.GRPC()).ListListeners(context.Background(),
		&pb.ListListenersRequest{Filter: "status.state = running"})
	if err != nil {
		log.Fatal(err) // status.Convert(err).Details() has the reason
	}
	for _, l := range resp.GetListeners() {
		s := l.GetStatus()
		log.Printf("%s: %d of %d wait", l.GetName(), s.GetAcceptQueue(), s.GetAcceptQueueLimit())
	}
}
