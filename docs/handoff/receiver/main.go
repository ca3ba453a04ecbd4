// Command receiver takes connections over from a sockmgr listener with the
// handoff handler, and greets.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"syscall"
)

func main() {
	log.SetFlags(0)
	server, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	for {
		daemon, err := server.AcceptUnix()
		if err != nil {
			log.Fatal(err)
		}
		for err == nil {
			err = greet(daemon)
		}
		log.Print(err) // the listener was stopped; it connects again
		_ = daemon.Close()
	}
}

// greet takes one connection.
func greet(daemon *net.UnixConn) error {
	data, rights := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	n, rightsLen, _, _, err := daemon.ReadMsgUnix(data, rights)
	if err != nil {
		return err
	}
	var header struct{ Listener, Remote string }
	if err := json.Unmarshal(data[:n], &header); err != nil {
		return err
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:rightsLen])
	if err != nil {
		return err
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fds[0]), header.Remote)
	client, err := net.FileConn(file) // has a descriptor of its own
	_ = file.Close()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	_, err = fmt.Fprintf(client, "hello %s\n", header.Remote)
	return err
}
