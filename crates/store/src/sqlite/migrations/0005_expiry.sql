-- What a front end that has ended leaves behind is found by it.

create index publication_fe on publication (fe, user_id);
