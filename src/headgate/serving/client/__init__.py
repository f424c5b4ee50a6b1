"""The client's side: the listening socket, its connections, the requests that arrive and the bytes that leave."""
