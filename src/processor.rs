//! What Linux tells of the processor in `/proc/cpuinfo`. On other systems nothing is known.

/// The processor, as the system describes it.
#[derive(Debug, Clone)]
pub(crate) struct Processor {
    cpuinfo: String,
}

impl Processor {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        Processor { cpuinfo: std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default() }
    }

    /// A processor of which the system would tell this.
    #[cfg(test)]
    pub(crate) fn told(cpuinfo: &str) -> Self {
        Processor { cpuinfo: cpuinfo.to_owned() }
    }

    /// The value of a field, such as `model name`, of the first core; `None` if it is not known.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        line(&self.cpuinfo, name)
    }

    /// The names of what it can do; `None` if they are not known, which does not mean that it can do nothing.
    pub(crate) fn flags(&self) -> Option<Vec<&str>> {
        // x86 and Arm have their own names for it.
        let flags = self.field("flags").or_else(|| self.field("Features"))?;
        Some(flags.split_whitespace().collect())
    }
}

/// The value of the first `label : value` line, as files below `/proc` have them.
pub(crate) fn line<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == label).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_core_is_read_and_what_is_not_told_is_not_known() {
        let processor = Processor::told(
            "processor\t: 0\nmodel name\t: Some: CPU\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: none\n",
        );
        assert_eq!((processor.field("model name"), processor.field("model")), (Some("Some: CPU"), None));
        assert_eq!(processor.flags().unwrap(), ["fpu", "avx2"]);
        assert_eq!(Processor::told("Features : fp asimd\n").flags().unwrap(), ["fp", "asimd"]);
        assert_eq!(Processor::told("").flags(), None);
    }
}
