//! What a terminal does with the bytes on their way.

use std::fmt;

use rustix::termios::{ControlModes, InputModes, LocalModes, Termios};

/// Speeds that differ by less than this part are the same to a device.
const SPEED_TOLERANCE: u32 = 50;

/// Bits of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataBits {
    /// 5
    Five,
    /// 6
    Six,
    /// 7
    Seven,
    /// 8
    Eight,
}

/// What the bit that checks a character makes of the number of ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parity {
    /// There is no such bit.
    None,
    /// An odd one.
    Odd,
    /// An even one.
    Even,
}

/// Bits after a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopBits {
    /// 1
    One,
    /// 2
    Two,
}

/// The settings of a [`Terminal`](super::Terminal) (`termios(3)`). They do something when they are
/// [set](super::Terminal::set_settings).
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// # let (_controller, port) = omniring::terminal::Terminal::pair()?;
/// let mut settings = port.settings()?;
/// settings.make_raw();
/// settings.set_speed(115_200);
/// port.set_settings(&settings)?;
/// assert_eq!(port.settings()?.speed(), 115_200);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Settings {
    termios: Termios,
}

impl Settings {
    pub(super) fn new(termios: Termios) -> Settings {
        Settings { termios }
    }

    pub(super) fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Every byte is handed on as it comes, without echo, lines, signals or translation, 8 bits
    /// without parity (`cfmakeraw(3)`): for serial ports as a rule, and for programs that draw.
    pub fn make_raw(&mut self) {
        self.termios.make_raw();
    }

    /// Bits per second of a serial line, of what is sent.
    pub fn speed(&self) -> u32 {
        self.termios.output_speed()
    }

    /// Bits per second of a serial line, in both directions: any that the device can do, whether or
    /// not POSIX has a name for it. 0 hangs up.
    pub fn set_speed(&mut self, bits_per_second: u32) {
        let set = self.termios.set_speed(bits_per_second);
        set.expect("Linux takes any number");
    }

    /// Bits of a character.
    pub fn data_bits(&self) -> DataBits {
        match self.termios.control_modes & ControlModes::CSIZE {
            ControlModes::CS5 => DataBits::Five,
            ControlModes::CS6 => DataBits::Six,
            ControlModes::CS7 => DataBits::Seven,
            _ => DataBits::Eight,
        }
    }

    /// Sets the bits of a character.
    pub fn set_data_bits(&mut self, bits: DataBits) {
        self.termios.control_modes -= ControlModes::CSIZE;
        self.termios.control_modes |= match bits {
            DataBits::Five => ControlModes::CS5,
            DataBits::Six => ControlModes::CS6,
            DataBits::Seven => ControlModes::CS7,
            DataBits::Eight => ControlModes::CS8,
        };
    }

    /// How characters are checked.
    pub fn parity(&self) -> Parity {
        let modes = self.termios.control_modes;
        match (modes.contains(ControlModes::PARENB), modes.contains(ControlModes::PARODD)) {
            (false, _) => Parity::None,
            (true, true) => Parity::Odd,
            (true, false) => Parity::Even,
        }
    }

    /// Sets how characters are checked.
    pub fn set_parity(&mut self, parity: Parity) {
        self.set_control(ControlModes::PARENB, parity != Parity::None);
        self.set_control(ControlModes::PARODD, parity == Parity::Odd);
    }

    /// Bits after a character.
    pub fn stop_bits(&self) -> StopBits {
        match self.termios.control_modes.contains(ControlModes::CSTOPB) {
            true => StopBits::Two,
            false => StopBits::One,
        }
    }

    /// Sets the bits after a character.
    pub fn set_stop_bits(&mut self, bits: StopBits) {
        self.set_control(ControlModes::CSTOPB, bits == StopBits::Two);
    }

    /// Whether each side stops the other by a line of the cable (RTS/CTS).
    pub fn hardware_flow_control(&self) -> bool {
        self.termios.control_modes.contains(ControlModes::CRTSCTS)
    }

    /// Sets whether each side stops the other by a line of the cable (RTS/CTS).
    pub fn set_hardware_flow_control(&mut self, on: bool) {
        self.set_control(ControlModes::CRTSCTS, on);
    }

    /// Whether each side stops the other by a character (XON/XOFF, Ctrl-Q and Ctrl-S).
    pub fn software_flow_control(&self) -> bool {
        self.termios.input_modes.contains(InputModes::IXON | InputModes::IXOFF)
    }

    /// Sets whether each side stops the other by a character (XON/XOFF, Ctrl-Q and Ctrl-S).
    pub fn set_software_flow_control(&mut self, on: bool) {
        self.termios.input_modes.set(InputModes::IXON | InputModes::IXOFF, on);
    }

    /// Whether the modem's lines are ignored: then nobody hangs up.
    pub fn ignores_modem(&self) -> bool {
        self.termios.control_modes.contains(ControlModes::CLOCAL)
    }

    /// Sets whether the modem's lines are ignored.
    pub fn set_ignores_modem(&mut self, ignores: bool) {
        self.set_control(ControlModes::CLOCAL, ignores);
    }

    /// Whether what is received is sent back, for the person to see.
    pub fn echo(&self) -> bool {
        self.termios.local_modes.contains(LocalModes::ECHO)
    }

    /// Sets whether what is received is sent back; not for passwords, for example.
    pub fn set_echo(&mut self, on: bool) {
        self.termios.local_modes.set(LocalModes::ECHO, on);
    }

    /// Whether input comes by lines, which can be edited until they end.
    pub fn lines(&self) -> bool {
        self.termios.local_modes.contains(LocalModes::ICANON)
    }

    /// Sets whether input comes by lines, which can be edited until they end.
    pub fn set_lines(&mut self, on: bool) {
        self.termios.local_modes.set(LocalModes::ICANON, on);
    }

    /// Whether Ctrl-C, Ctrl-\ and Ctrl-Z make signals.
    pub fn signals(&self) -> bool {
        self.termios.local_modes.contains(LocalModes::ISIG)
    }

    /// Sets whether Ctrl-C, Ctrl-\ and Ctrl-Z make signals.
    pub fn set_signals(&mut self, on: bool) {
        self.termios.local_modes.set(LocalModes::ISIG, on);
    }

    fn set_control(&mut self, modes: ControlModes, on: bool) {
        self.termios.control_modes.set(modes, on);
    }

    /// What was asked for here and is not so in the settings that hold.
    pub(super) fn refused_by(&self, held: &Settings) -> Option<String> {
        let mut refused = Vec::new();
        let (asked, got) = (self.speed(), held.speed());
        if asked.abs_diff(got) > asked / SPEED_TOLERANCE {
            refused.push(format!("a speed of {asked} (it has {got})"));
        }
        let mut check = |what: &str, asked: &dyn fmt::Debug, got: &dyn fmt::Debug| {
            let (asked, got) = (format!("{asked:?}"), format!("{got:?}"));
            if asked != got {
                refused.push(format!("{what} {asked} (it has {got})"));
            }
        };
        check("data bits", &self.data_bits(), &held.data_bits());
        check("parity", &self.parity(), &held.parity());
        check("stop bits", &self.stop_bits(), &held.stop_bits());
        let (asked, got) = (self.hardware_flow_control(), held.hardware_flow_control());
        check("hardware flow control", &asked, &got);
        if refused.is_empty() { None } else { Some(refused.join(", ")) }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("speed", &self.speed())
            .field("data_bits", &self.data_bits())
            .field("parity", &self.parity())
            .field("stop_bits", &self.stop_bits())
            .field("echo", &self.echo())
            .field("lines", &self.lines())
            .field("signals", &self.signals())
            .finish_non_exhaustive()
    }
}
