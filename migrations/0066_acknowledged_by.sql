-- Who acknowledged an incident: the address of an account, the name of an API key, or the channel whose link was used. NULL: nobody did, or
-- old code noted it.

ALTER TABLE incident ADD COLUMN acknowledged_by text;
