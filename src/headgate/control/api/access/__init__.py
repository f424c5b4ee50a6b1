"""Who may call the admin API: the door, what each route needs, logins, sessions, users, the audit log."""
