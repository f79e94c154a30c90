-- The newest number under which a home may have been opened; NULL where nobody has opened it. An owner writes it before it
-- acknowledges anything, so a file of this number or a later one has all that was ever acknowledged, and where there is
-- none, nothing was.
ALTER TABLE homes ADD COLUMN opened INTEGER;
UPDATE homes SET opened = number;
