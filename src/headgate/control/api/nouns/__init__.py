"""The routes and views of each noun of the admin API."""
