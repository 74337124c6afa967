//! Geospatial indexes: sorted sets whose scores are places on the earth.

mod grid;

use super::support::integer;
use super::{Answer, Call, DONE, Spec, zsets};
use crate::error::Error;
use crate::protocol::{Args, OwnedArgs, Reply, parse_f64, write_f64};
use crate::store::{ScoreBound, Zset};
use grid::{Area, Place, Shape};

#[cfg(test)]
mod tests;

/// How the cost of a search grows.
const OF_SEARCH: &str =
    "O(N+log(M)), N the number of members in the cells around the area and M of all members";

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("geoadd", -5, geoadd).writes().key(1).doc(
        "geo",
        "3.2.0",
        "O(log(N)) for each member added, N the number of members",
        "Add members with their places, or change their places",
    ),
    Spec::data("geodist", -4, geodist).reads().key(1).doc(
        "geo",
        "3.2.0",
        "O(1)",
        "Get how far it is from one member to another",
    ),
    Spec::data("geohash", -2, geohash).reads().key(1).doc(
        "geo",
        "3.2.0",
        "O(N), N the number of members asked for",
        "Get the places of members as geohashes",
    ),
    Spec::data("geopos", -2, geopos).reads().key(1).doc(
        "geo",
        "3.2.0",
        "O(N), N the number of members asked for",
        "Get the longitudes and latitudes of members",
    ),
    Spec::data("georadius", -6, |call, args| search(call, args, GEORADIUS))
        .writes()
        .key_and_after(1, 6, STORES)
        .doc("geo", "3.2.0", OF_SEARCH, "Get or store the members around a place"),
    Spec::data("georadius_ro", -6, |call, args| search(call, args, GEORADIUS.reading()))
        .reads()
        .key(1)
        .doc("geo", "3.2.10", OF_SEARCH, "Get the members around a place"),
    Spec::data("georadiusbymember", -5, |call, args| search(call, args, BY_MEMBER))
        .writes()
        .key_and_after(1, 5, STORES)
        .doc("geo", "3.2.0", OF_SEARCH, "Get or store the members around one"),
    Spec::data("georadiusbymember_ro", -5, |call, args| search(call, args, BY_MEMBER.reading()))
        .reads()
        .key(1)
        .doc("geo", "3.2.10", OF_SEARCH, "Get the members around one"),
    Spec::data("geosearch", -7, |call, args| search(call, args, GEOSEARCH)).reads().key(1).doc(
        "geo",
        "6.2.0",
        OF_SEARCH,
        "Get the members in a circle or a box",
    ),
    Spec::data("geosearchstore", -8, |call, args| search(call, args, GEOSEARCHSTORE))
        .writes()
        .keys(1, 2, 1)
        .doc("geo", "6.2.0", OF_SEARCH, "Store the members in a circle or a box"),
];

/// Options before the key at which the result is put.
const STORES: &[&str] = &["store", "storedist"];

// Adding.

fn geoadd(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let is_option = |&at: &usize| ["nx", "xx", "ch"].iter().any(|word| args.is(at, word));
    let first = (2..args.len()).find(|at| !is_option(at)).unwrap_or(args.len());
    let has = |word| (2..first).any(|at| args.is(at, word));
    if !(args.len() - first).is_multiple_of(3) || (has("nx") && has("xx")) {
        return Err(Error::SYNTAX);
    }
    let mut words: Vec<Vec<u8>> = vec![b"ZADD".to_vec()];
    words.extend(args.iter_from(1).take(first - 1).map(<[u8]>::to_vec));
    for at in (first..args.len()).step_by(3) {
        words.push(place(args, at)?.score().to_string().into_bytes());
        words.push(args[at + 2].to_vec());
    }
    let words = OwnedArgs::of(words);
    let before = call.keys.effects.dirty;
    let answer = zsets::zadd(call, words.args());
    if call.keys.effects.dirty > before {
        // So that what is in the log does not depend on how places are computed.
        call.keys.log_as(words.args().iter_from(0));
    }
    answer
}

/// The place that the word at `at` and the next one give.
fn place(args: Args<'_>, at: usize) -> Result<Place, Error> {
    let degrees = |at| args.get(at).and_then(parse_f64).ok_or(Error::NOT_A_FLOAT);
    let (lon, lat) = (degrees(at)?, degrees(at + 1)?);
    let invalid = || Error::of(format!("ERR invalid longitude,latitude pair {lon:.6},{lat:.6}"));
    Place::new(lon, lat).ok_or_else(invalid)
}

// Looking.

fn member_place(zset: &Zset, member: &[u8]) -> Option<Place> {
    zset.score(member).map(Place::of_score)
}

fn geodist(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() > 5 {
        return Err(Error::SYNTAX);
    }
    let unit = args.get(4).map_or(Ok(1.0), unit)?;
    let zset = call.keys.zset(&args[1])?;
    let places =
        zset.and_then(|zset| Some((member_place(zset, &args[2])?, member_place(zset, &args[3])?)));
    match places {
        Some((from, to)) => distance(call.reply, from.distance(to) / unit),
        None => call.reply.null(),
    }
    DONE
}

/// A distance, with four decimals.
fn distance(reply: &mut Reply, distance: f64) {
    // Halves go to even numbers, as what is printed elsewhere does.
    let rounded = (distance * 10_000.0).round_ties_even() / 10_000.0;
    reply.bulk(format!("{rounded:.4}").as_bytes());
}

fn geohash(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let zset = call.keys.zset(&args[1])?;
    call.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        match zset.and_then(|zset| member_place(zset, member)) {
            Some(place) => call.reply.bulk(&place.geohash()),
            None => call.reply.null(),
        }
    }
    DONE
}

fn geopos(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let zset = call.keys.zset(&args[1])?;
    call.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        match zset.and_then(|zset| member_place(zset, member)) {
            Some(place) => coordinates(call.reply, place),
            None => call.reply.null_array(),
        }
    }
    DONE
}

fn coordinates(reply: &mut Reply, place: Place) {
    reply.array(2);
    reply.decimal(place.lon);
    reply.decimal(place.lat);
}

// Searching.

/// Which of the commands that search it is.
#[derive(Clone, Copy)]
struct Kind {
    /// The index of the key that is searched.
    key: usize,
    /// The index of the first option.
    options: usize,
    /// What GEORADIUS and the like have before the options: a place, or a member.
    around: Around,
    /// Whether options say where the result is put.
    may_store: bool,
    /// The event of a stored result.
    event: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Place,
    Member,
    /// Options say it.
    Any,
}

const GEORADIUS: Kind =
    Kind { key: 1, options: 6, around: Around::Place, may_store: true, event: "georadiusstore" };
const BY_MEMBER: Kind = Kind { options: 5, around: Around::Member, ..GEORADIUS };
const GEOSEARCH: Kind = Kind {
    options: 2,
    around: Around::Any,
    may_store: false,
    event: "geosearchstore",
    ..GEORADIUS
};
const GEOSEARCHSTORE: Kind = Kind { key: 2, options: 3, ..GEOSEARCH };

impl Kind {
    /// Without the option to store.
    const fn reading(self) -> Kind {
        Kind { may_store: false, ..self }
    }

    /// Whether it is GEOSEARCHSTORE.
    fn always_stores(&self) -> bool {
        self.key == 2
    }
}

/// What is asked for.
#[derive(Default)]
struct Search<'a> {
    /// Around what. None where the key, whose member it is, is not there.
    center: Option<Place>,
    has_member: bool,
    has_place: bool,
    shape: Option<Shape>,
    /// Metres in the unit of distances.
    unit: f64,
    with_distance: bool,
    with_hash: bool,
    with_coordinates: bool,
    order: Option<Order>,
    /// How many members at most.
    count: Option<usize>,
    /// Whether any of them will do, not the nearest.
    any: bool,
    store: Option<&'a [u8]>,
    /// Whether distances are stored, not places.
    store_distances: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    NearestFirst,
    FarthestFirst,
}

/// A member that was found.
struct Found<'k> {
    member: &'k [u8],
    score: f64,
    place: Place,
    /// In metres.
    distance: f64,
}

fn search(call: &mut Call<'_>, args: Args<'_>, kind: Kind) -> Answer {
    let zset = call.keys.zset(&args[kind.key])?;
    let search = Search::parse(args, kind, zset)?;
    let found = zset.map_or_else(Vec::new, |zset| search.find(zset));
    let Some(to) = search.store else {
        call.reply.array(found.len());
        found.iter().for_each(|found| search.write(call.reply, found));
        return DONE;
    };
    let scores: Vec<(Vec<u8>, f64)> = found
        .iter()
        .map(|found| {
            let distance = found.distance / search.unit;
            (found.member.to_vec(), if search.store_distances { distance } else { found.score })
        })
        .collect();
    store(call, to, &scores, kind.event)
}

impl<'a> Search<'a> {
    fn parse(args: Args<'a>, kind: Kind, zset: Option<&Zset>) -> Result<Search<'a>, Error> {
        let mut search = Search { unit: 1.0, ..Search::default() };
        match kind.around {
            Around::Place => {
                search.center = Some(place(args, 2)?);
                search.circle(args, 4)?;
            }
            Around::Member if zset.is_some() => {
                search.center = around_member(zset, &args[2])?;
                search.circle(args, 3)?;
            }
            // What is around nothing is nothing, however far.
            Around::Member => {}
            Around::Any => {}
        }
        if kind.always_stores() {
            search.store = args.get(1);
        }
        let mut at = kind.options;
        while at < args.len() {
            at = search.option(args, at, kind, zset)?;
        }
        search.check(args, kind)?;
        Ok(search)
    }

    /// Takes the option at `at` and gives the index of the next one.
    fn option(
        &mut self,
        args: Args<'a>,
        at: usize,
        kind: Kind,
        zset: Option<&Zset>,
    ) -> Result<usize, Error> {
        // Words that are there after it.
        let more = args.len() - at - 1;
        let is_search = kind.around == Around::Any;
        let taken = match () {
            () if args.is(at, "withdist") => {
                self.with_distance = true;
                0
            }
            () if args.is(at, "withhash") => {
                self.with_hash = true;
                0
            }
            () if args.is(at, "withcoord") => {
                self.with_coordinates = true;
                0
            }
            () if args.is(at, "any") => {
                self.any = true;
                0
            }
            () if args.is(at, "asc") => {
                self.order = Some(Order::NearestFirst);
                0
            }
            () if args.is(at, "desc") => {
                self.order = Some(Order::FarthestFirst);
                0
            }
            () if args.is(at, "count") && more >= 1 => {
                let count =
                    usize::try_from(integer(&args[at + 1])?).ok().filter(|&count| count > 0);
                self.count = Some(count.ok_or(Error::new("ERR COUNT must be > 0"))?);
                1
            }
            () if kind.may_store && more >= 1 && STORES.iter().any(|word| args.is(at, word)) => {
                self.store = args.get(at + 1);
                self.store_distances = args.is(at, "storedist");
                1
            }
            () if kind.always_stores() && args.is(at, "storedist") => {
                self.store_distances = true;
                0
            }
            () if is_search && args.is(at, "frommember") && more >= 1 && !self.has_place => {
                self.center = around_member(zset, &args[at + 1])?;
                self.has_member = true;
                1
            }
            () if is_search && args.is(at, "fromlonlat") && more >= 2 && !self.has_member => {
                self.center = Some(place(args, at + 1)?);
                self.has_place = true;
                2
            }
            () if is_search
                && args.is(at, "byradius")
                && more >= 2
                && !matches!(self.shape, Some(Shape::Box { .. })) =>
            {
                self.circle(args, at + 1)?;
                2
            }
            () if is_search
                && args.is(at, "bybox")
                && more >= 3
                && !matches!(self.shape, Some(Shape::Circle(_))) =>
            {
                self.rectangle(args, at + 1)?;
                3
            }
            () => return Err(Error::SYNTAX),
        };
        Ok(at + 1 + taken)
    }

    /// Checks that the options go together.
    fn check(&mut self, args: Args<'_>, kind: Kind) -> Result<(), Error> {
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_coordinates) {
            let what =
                if kind.always_stores() { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(Error::of(format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let one_of = |what: &str| {
            let name = String::from_utf8_lossy(&args[0]);
            Err(Error::of(format!("ERR exactly one of {what} can be specified for {name}")))
        };
        if kind.around == Around::Any && !self.has_member && !self.has_place {
            return one_of("FROMMEMBER or FROMLONLAT");
        }
        if kind.around == Around::Any && self.shape.is_none() {
            return one_of("BYRADIUS and BYBOX");
        }
        if self.any && self.count.is_none() {
            return Err(Error::new("ERR the ANY argument requires COUNT argument"));
        }
        // Some of them are the nearest ones, unless any will do.
        if self.count.is_some() && !self.any {
            self.order = self.order.or(Some(Order::NearestFirst));
        }
        Ok(())
    }

    fn circle(&mut self, args: Args<'_>, at: usize) -> Result<(), Error> {
        let radius = args.get(at).and_then(parse_f64);
        let radius = radius.ok_or(Error::new("ERR need numeric radius"))?;
        if radius < 0.0 {
            return Err(Error::new("ERR radius cannot be negative"));
        }
        self.unit = unit(args.get(at + 1).unwrap_or_default())?;
        self.shape = Some(Shape::Circle(radius * self.unit));
        Ok(())
    }

    fn rectangle(&mut self, args: Args<'_>, at: usize) -> Result<(), Error> {
        let width = parse_f64(&args[at]).ok_or(Error::new("ERR need numeric width"))?;
        let height = parse_f64(&args[at + 1]).ok_or(Error::new("ERR need numeric height"))?;
        if width < 0.0 || height < 0.0 {
            return Err(Error::new("ERR height or width cannot be negative"));
        }
        self.unit = unit(&args[at + 2])?;
        self.shape = Some(Shape::Box { width: width * self.unit, height: height * self.unit });
        Ok(())
    }

    /// The members asked for, in the order asked for, or else as they lie.
    fn find<'k>(&self, zset: &'k Zset) -> Vec<Found<'k>> {
        let (Some(center), Some(shape)) = (self.center, self.shape) else {
            return Vec::new();
        };
        let area = Area { center, shape };
        let members = area.ranges().into_iter().flat_map(|range| {
            let bound = |score: u64, exclusive| ScoreBound { score: score as f64, exclusive };
            let ranks = zset.ranks_by_score(bound(range.start, false), bound(range.end, true));
            zset.iter_from(ranks.start).take(ranks.len())
        });
        let found = members.filter_map(|(member, score)| {
            let place = Place::of_score(score);
            let distance = area.distance(place)?;
            Some(Found { member, score, place, distance })
        });
        let count = self.count.unwrap_or(usize::MAX);
        let mut found: Vec<Found<'k>> =
            found.take(if self.any { count } else { usize::MAX }).collect();
        match self.order {
            Some(Order::NearestFirst) => found.sort_by(|a, b| a.distance.total_cmp(&b.distance)),
            Some(Order::FarthestFirst) => found.sort_by(|a, b| b.distance.total_cmp(&a.distance)),
            None => {}
        }
        found.truncate(count);
        found
    }

    fn write(&self, reply: &mut Reply, found: &Found<'_>) {
        let options = [self.with_distance, self.with_hash, self.with_coordinates];
        let options = options.into_iter().filter(|is_asked| *is_asked).count();
        if options > 0 {
            reply.array(1 + options);
        }
        reply.bulk(found.member);
        if self.with_distance {
            distance(reply, found.distance / self.unit);
        }
        if self.with_hash {
            reply.int(found.score as i64);
        }
        if self.with_coordinates {
            coordinates(reply, found.place);
        }
    }
}

/// The place of a member, which has to be there if its key is.
fn around_member(zset: Option<&Zset>, member: &[u8]) -> Result<Option<Place>, Error> {
    let missing = Error::new("ERR could not decode requested zset member");
    zset.map(|zset| member_place(zset, member).ok_or(missing)).transpose()
}

/// Metres in a unit.
fn unit(word: &[u8]) -> Result<f64, Error> {
    match &word.to_ascii_lowercase()[..] {
        b"m" => Ok(1.0),
        b"km" => Ok(1000.0),
        b"ft" => Ok(0.3048),
        b"mi" => Ok(1609.34),
        _ => Err(Error::new("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

/// Stores what was found. The log gets the members themselves: who lies in an area is a matter of sines, of which
/// another machine may have a different opinion.
fn store(
    call: &mut Call<'_>,
    key: &[u8],
    members: &[(Vec<u8>, f64)],
    event: &'static str,
) -> Answer {
    /// Members in a command of the log.
    const TOGETHER: usize = 1024;
    let limits = call.keys.limits;
    let mut zset = Zset::new();
    members.iter().for_each(|(member, score)| _ = zset.insert(member, *score, &limits));
    let before = call.keys.effects.dirty;
    let answer = zsets::store(call, key, zset, event);
    if call.keys.effects.dirty == before {
        return answer;
    }
    call.keys.log_as([b"DEL", key]);
    for members in members.chunks(TOGETHER) {
        let mut words = vec![b"ZADD".to_vec(), key.to_vec()];
        for (member, score) in members {
            let mut text = Vec::new();
            write_f64(&mut text, *score);
            words.extend([text, member.clone()]);
        }
        call.keys.log_as(words);
    }
    answer
}
