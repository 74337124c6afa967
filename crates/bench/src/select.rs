//! Lists on the command line: comma separated names, where `*` at the end
//! stands for any ending.

/// Indices of the `names` that `list` selects, in the order of `names`; all of
/// them when there is no list. The error is the first item that selects none.
pub(crate) fn select(names: &[&str], list: Option<&str>) -> Result<Vec<usize>, String> {
    let Some(list) = list else {
        return Ok((0..names.len()).collect());
    };
    let mut chosen = vec![false; names.len()];
    for item in list.split(',').map(str::trim) {
        let mut found = false;
        for (index, name) in names.iter().enumerate() {
            if matches(name, item) {
                chosen[index] = true;
                found = true;
            }
        }
        if !found {
            return Err(item.to_owned());
        }
    }
    Ok((0..names.len()).filter(|&index| chosen[index]).collect())
}

fn matches(name: &str, item: &str) -> bool {
    match item.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == item,
    }
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn a_star_stands_for_any_ending() {
        let names = ["a-1", "a-2", "b"];
        assert_eq!(select(&names, None), Ok(vec![0, 1, 2]));
        assert_eq!(select(&names, Some("b, a-*")), Ok(vec![0, 1, 2]));
        assert_eq!(select(&names, Some("a-2")), Ok(vec![1]));
        assert_eq!(select(&names, Some("a")), Err("a".to_owned()));
        assert_eq!(select(&names, Some("")), Err(String::new()));
    }
}
