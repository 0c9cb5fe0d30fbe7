"""Every query. A statement names its tenant, but for the fleet's few (`FLEET_QUERIES` of each module)."""
