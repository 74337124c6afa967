//! Places as numbers: cells of a grid over the earth, distances, and which cells an area lies in.
//!
//! A place is the number of its cell at the finest level: 26 bits of longitude and 26 of latitude, interleaved, the
//! first bit of longitude highest. So each cell of a coarser level is one range of numbers, and what lies near each
//! other mostly has numbers near each other. The scores are those of Redis, bit for bit.

use std::f64::consts::PI;
use std::ops::Range;

/// Bits of the longitude, and of the latitude, of a place: the finest level.
const LEVEL_MAX: u32 = 26;

/// The end of longitudes, in degrees.
const LON_MAX: f64 = 180.0;
/// The end of latitudes: up to where web maps go, whose projection makes a square of that.
const LAT_MAX: f64 = 85.05112878;

/// The radius of the earth, taken as a sphere, in metres: the quadratic mean of WGS 84.
const EARTH_RADIUS: f64 = 6_372_797.560856;
/// Half of the way around the equator in that projection, in metres.
const HALF_EQUATOR: f64 = 20_037_726.37;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) lon: f64,
    pub(super) lat: f64,
}

impl Place {
    /// The place at these degrees, if the grid has it.
    pub(super) fn new(lon: f64, lat: f64) -> Option<Place> {
        let is_on_grid = lon.abs() <= LON_MAX && lat.abs() <= LAT_MAX;
        is_on_grid.then_some(Place { lon, lat })
    }

    /// The number of its cell at the finest level.
    pub(super) fn score(self) -> u64 {
        interleave(index(self.lon, LON_MAX, LEVEL_MAX), index(self.lat, LAT_MAX, LEVEL_MAX))
    }

    /// The middle of the cell with that number.
    pub(super) fn of_score(score: f64) -> Place {
        let bits = score as u64;
        let middle = |index: u32, end: f64| {
            let index = f64::from(index);
            let middle = (edge(index, end, LEVEL_MAX) + edge(index + 1.0, end, LEVEL_MAX)) / 2.0;
            middle.clamp(-end, end)
        };
        Place { lon: middle(gather(bits >> 1), LON_MAX), lat: middle(gather(bits), LAT_MAX) }
    }

    /// How far it is to another place over the surface, in metres: by haversines.
    pub(super) fn distance(self, to: Place) -> f64 {
        let v = ((to.lon.to_radians() - self.lon.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return self.distance_in_latitude(to);
        }
        let (from_lat, to_lat) = (self.lat.to_radians(), to.lat.to_radians());
        let u = ((to_lat - from_lat) / 2.0).sin();
        2.0 * EARTH_RADIUS * (u * u + from_lat.cos() * to_lat.cos() * v * v).sqrt().asin()
    }

    fn distance_in_latitude(self, to: Place) -> f64 {
        EARTH_RADIUS * (to.lat.to_radians() - self.lat.to_radians()).abs()
    }

    /// Its geohash as others have it, who give latitudes up to the poles: eleven letters, the last always 0.
    pub(super) fn geohash(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits =
            interleave(index(self.lon, LON_MAX, LEVEL_MAX), index(self.lat, 90.0, LEVEL_MAX));
        std::array::from_fn(|at| match at {
            // There are 52 bits, two short of what another letter takes.
            10 => LETTERS[0],
            _ => LETTERS[(bits >> (47 - 5 * at)) as usize & 31],
        })
    }
}

/// A shape around its centre, in metres.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// What is no farther than this.
    Circle(f64),
    /// What is no farther east or west, along its own latitude, than half the width, and no farther north or south
    /// than half the height.
    Box { width: f64, height: f64 },
}

/// A part of the earth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) center: Place,
    pub(super) shape: Shape,
}

/// Degrees that an area does not exceed.
struct Bounds {
    south: f64,
    north: f64,
    /// To the west and to the east of the centre; 180 is all around.
    sideways: f64,
}

impl Area {
    /// How far a place is from the centre, in metres, if it lies in the area.
    pub(super) fn distance(&self, place: Place) -> Option<f64> {
        match self.shape {
            Shape::Circle(radius) => {
                let distance = self.center.distance(place);
                (distance <= radius).then_some(distance)
            }
            Shape::Box { width, height } => {
                let beside = Place { lon: self.center.lon, lat: place.lat };
                let is_inside = self.center.distance_in_latitude(place) <= height / 2.0
                    && place.distance(beside) <= width / 2.0;
                is_inside.then(|| self.center.distance(place))
            }
        }
    }

    /// Ranges of numbers that have all places of the area, and more: of the cell of the centre first, then of its
    /// neighbours as far as the area is in them. None overlaps another.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let bounds = self.bounds();
        let mut level = self.level();
        while level > 1 && !Cell::of(self.center, level).has_around_it(self.center, &bounds) {
            level -= 1;
        }
        let cell = Cell::of(self.center, level);
        let mut cells = vec![cell];
        for (east, north) in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)]
        {
            if let Some(neighbour) = cell.neighbour(east, north, self.center, &bounds)
                && !cells.contains(&neighbour)
            {
                cells.push(neighbour);
            }
        }
        cells.iter().flat_map(|cell| cell.ranges()).collect()
    }

    /// The finest level at which a cell at the equator is wider than the area. The area is then in few cells, and most
    /// of what is in these is in the area.
    fn level(&self) -> u32 {
        let radius = match self.shape {
            Shape::Circle(radius) => radius,
            Shape::Box { width, height } => (width / 2.0).hypot(height / 2.0),
        };
        let fits = |level: &u32| HALF_EQUATOR / f64::from(1 << level) > radius;
        (1..=LEVEL_MAX).rev().find(fits).unwrap_or(1)
    }

    fn bounds(&self) -> Bounds {
        // More than computing with doubles is off by.
        let more = |degrees: f64| degrees * (1.0 + 1e-9) + 1e-9;
        let Place { lat, .. } = self.center;
        let (up, sine) = match self.shape {
            // A circle is widest where a meridian touches it.
            Shape::Circle(radius) => {
                let angle = radius / EARTH_RADIUS;
                let reaches_pole = lat.abs() + more(angle.to_degrees()) >= 90.0;
                let sine = angle.sin() / lat.to_radians().cos();
                (angle, if reaches_pole { 1.0 } else { sine })
            }
            // Along its own latitude a place is half the width away at most: that is most degrees where the box is
            // nearest to a pole.
            Shape::Box { width, height } => {
                let angle = height / 2.0 / EARTH_RADIUS;
                let farthest = (lat.abs() + more(angle.to_degrees())).min(LAT_MAX);
                let half = (width / 4.0 / EARTH_RADIUS).min(PI / 2.0);
                (angle, half.sin() / farthest.to_radians().cos())
            }
        };
        let of_sine = match self.shape {
            Shape::Circle(_) => sine.min(1.0).asin().to_degrees(),
            Shape::Box { .. } => 2.0 * sine.min(1.0).asin().to_degrees(),
        };
        let sideways = if sine < 1.0 { more(of_sine).min(LON_MAX) } else { LON_MAX };
        let up = more(up.to_degrees());
        Bounds { south: lat - up, north: lat + up, sideways }
    }
}

/// A cell of the grid: of `1 << level` columns and as many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    column: u32,
    row: u32,
    level: u32,
}

impl Cell {
    /// The cell of a place.
    fn of(place: Place, level: u32) -> Cell {
        let last = (1 << level) - 1;
        let column = index(place.lon, LON_MAX, level).min(last);
        Cell { column, row: index(place.lat, LAT_MAX, level).min(last), level }
    }

    /// The western edge of its column, or of one so many columns farther east, perhaps past the end.
    fn west(&self, columns: i32) -> f64 {
        edge(f64::from(self.column) + f64::from(columns), LON_MAX, self.level)
    }

    /// The southern edge of its row, or of one so many rows farther north.
    fn south(&self, rows: i32) -> f64 {
        edge(f64::from(self.row) + f64::from(rows), LAT_MAX, self.level)
    }

    /// Whether what lies within the bounds is in this cell, which is the centre's, and the eight around it.
    fn has_around_it(&self, center: Place, bounds: &Bounds) -> bool {
        let rows = 1 << self.level;
        (self.row <= 1 || self.south(-1) <= bounds.south)
            && (self.row + 2 >= rows || self.south(2) >= bounds.north)
            && self.west(-1) <= center.lon - bounds.sideways
            && self.west(2) >= center.lon + bounds.sideways
    }

    /// The cell that many columns east and rows north, one at most, if there is one with something within the bounds.
    fn neighbour(&self, east: i32, north: i32, center: Place, bounds: &Bounds) -> Option<Cell> {
        let is_wanted = match east {
            -1 => center.lon - bounds.sideways < self.west(0),
            1 => center.lon + bounds.sideways >= self.west(1),
            _ => true,
        } && match north {
            -1 => bounds.south < self.south(0),
            1 => bounds.north >= self.south(1),
            _ => true,
        };
        let count = 1 << self.level;
        let row = self.row.checked_add_signed(north).filter(|&row| row < count && is_wanted)?;
        // Behind the last column is the first one.
        let column = self.column.wrapping_add_signed(east) & (count - 1);
        Some(Cell { column, row, level: self.level })
    }

    /// The numbers of the places in it. A place at the very end of longitudes or latitudes has a column or row of its
    /// own, past the last one.
    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        const END: u32 = 1 << LEVEL_MAX;
        let finer = LEVEL_MAX - self.level;
        let last = (1 << self.level) - 1;
        let columns = self.column << finer..(self.column + 1) << finer;
        let rows = self.row << finer..(self.row + 1) << finer;
        let block = |columns: &Range<u32>, rows: &Range<u32>| {
            interleave(columns.start, rows.start)..interleave(columns.end - 1, rows.end - 1) + 1
        };
        let (end, inside) = (END..END + 1, block(&columns, &rows));
        let (is_east, is_north) = (self.column == last, self.row == last);
        [
            Some(inside),
            is_east.then(|| block(&end, &rows)),
            is_north.then(|| block(&columns, &end)),
            (is_east && is_north).then(|| block(&end, &end)),
        ]
        .into_iter()
        .flatten()
    }
}

/// In which column or row of a level a degree lies, of degrees from `-end` to `end`.
fn index(degree: f64, end: f64, level: u32) -> u32 {
    ((degree + end) / (end + end) * f64::from(1 << level)) as u32
}

/// At which degree a column or row begins.
fn edge(index: f64, end: f64, level: u32) -> f64 {
    -end + index / f64::from(1 << level) * (end + end)
}

/// How far bits are moved to halve the groups in which they lie together, and where they are then.
const HALVINGS: [(u32, u64); 5] = [
    (16, 0x0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (2, 0x3333_3333_3333_3333),
    (1, 0x5555_5555_5555_5555),
];

/// The bits of both, those of the column first, by turns.
fn interleave(column: u32, row: u32) -> u64 {
    let spread = |bits: u32| {
        HALVINGS.iter().fold(u64::from(bits), |bits, (by, mask)| (bits | bits << by) & mask)
    };
    spread(column) << 1 | spread(row)
}

/// Every second bit, from the lowest on.
fn gather(bits: u64) -> u32 {
    let lowest = bits & HALVINGS[4].1;
    let doubled = HALVINGS.windows(2).rev().fold(lowest, |bits, pair| {
        let ((_, mask), (by, _)) = (pair[0], pair[1]);
        (bits | bits >> by) & mask
    });
    (doubled | doubled >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lon: f64, lat: f64) -> Place {
        Place::new(lon, lat).expect("it is on the grid")
    }

    #[test]
    fn a_place_is_its_number_and_back() {
        // As Redis has them.
        for (lon, lat, score) in [
            (-74.0131604, 40.7126674, 1791873972053020),
            (-73.7858139, 40.6428986, 1791895905559723),
            (13.361389, 38.115556, 3479099956230698),
            (-180.0, -LAT_MAX, 0),
        ] {
            assert_eq!(place(lon, lat).score(), score);
            let back = Place::of_score(score as f64);
            assert!((back.lon - lon).abs() < 6e-6 && (back.lat - lat).abs() < 3e-6, "{back:?}");
        }
        for bits in [0, 1, 0x5a5a_1234, u32::MAX] {
            assert_eq!(gather(interleave(0, bits)), bits);
            assert_eq!(gather(interleave(bits, !bits) >> 1), bits);
        }
        assert_eq!(Place::new(180.1, 0.0), None);
        assert_eq!(Place::new(0.0, f64::NAN), None);
    }

    #[test]
    fn no_place_of_an_area_is_outside_of_its_ranges() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..4000 {
            // Places are spread over the earth as far as the area goes; some lie at the ends of the grid.
            let mut any = |near: Option<(Place, f64)>| {
                let (lon, lat) = match near {
                    Some((at, degrees)) => (
                        at.lon + (random.f64() - 0.5) * degrees / at.lat.to_radians().cos(),
                        at.lat + (random.f64() - 0.5) * degrees,
                    ),
                    None => ((random.f64() - 0.5) * 360.0, (random.f64() - 0.5) * 170.0),
                };
                let lon = if random.u8(..16) == 0 { LON_MAX } else { lon };
                let lat = if random.u8(..16) == 0 { LAT_MAX } else { lat };
                let lon = if lon.abs() > 180.0 { lon - 360.0 * lon.signum() } else { lon };
                place(lon.clamp(-LON_MAX, LON_MAX), lat.clamp(-LAT_MAX, LAT_MAX))
            };
            let center = any(None);
            let size = 10f64.powf(f64::from(round % 80) / 10.0);
            let degrees = (size / EARTH_RADIUS).to_degrees() * 2.5;
            let places: Vec<Place> = (0..40).map(|_| any(Some((center, degrees)))).collect();
            let other = size * random.f64();
            let shape = match round % 3 {
                0 => Shape::Circle(size),
                1 => Shape::Box { width: size, height: other },
                _ => Shape::Box { width: other, height: size },
            };
            let area = Area { center, shape };
            let ranges = area.ranges();
            for (at, range) in ranges.iter().enumerate() {
                let later = &ranges[at + 1..];
                assert!(later.iter().all(|b| range.end <= b.start || b.end <= range.start));
            }
            for place in places {
                let score = place.score() as f64;
                if area.distance(Place::of_score(score)).is_some() {
                    let has = |range: &Range<u64>| range.contains(&(score as u64));
                    assert!(ranges.iter().any(has), "{area:?} {place:?} {ranges:?}");
                }
            }
        }
    }
}
