-- What a front end that has ended leaves behind is found by it. Nothing is indexed by time: that would take every refresh
-- its heap-only update.
create index publication_fe on commpool.publication (fe, user_id);
