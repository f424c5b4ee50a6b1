"""The data process's end of control: the channel, snapshots, the journal, operators' questions."""
